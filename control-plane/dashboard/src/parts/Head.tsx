import { useEffect, type ReactNode } from "react";

/** A view's title, also the document's. */
export function Head({ title, beside, children }: { title: string; beside?: ReactNode; children?: ReactNode }) {
  useEffect(() => {
    document.title = `${title} – Edgewright`;
  }, [title]);
  return (
    <div className="head">
      <div className="titles">
        <h1>{title}</h1>
        {beside !== undefined && <div className="row soft small">{beside}</div>}
      </div>
      {children !== undefined && <div className="row">{children}</div>}
    </div>
  );
}
