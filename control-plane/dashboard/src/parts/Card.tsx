import { useId, type ReactNode } from "react";
import { Link } from "react-router";

export function Card({ title, aside, children }: { title: string; aside?: ReactNode; children: ReactNode }) {
  const id = useId();
  return (
    <section className="card" aria-labelledby={id}>
      <header>
        <h2 id={id}>{title}</h2>
        {aside}
      </header>
      {children}
    </section>
  );
}

export function Figure({ figure, name, to }: { figure: string; name: string; to?: string }) {
  const inside = (
    <>
      <b>{figure}</b>
      <small>{name}</small>
    </>
  );
  return to === undefined ? (
    <div className="figure">{inside}</div>
  ) : (
    <Link className="figure" to={to}>
      {inside}
    </Link>
  );
}
