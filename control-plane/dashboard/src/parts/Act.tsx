// Buttons that change something: shown to whoever may, with a question first where it cannot be undone.
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useId, useRef, type ReactNode } from "react";
import type { Role } from "../api/types";
import { useMay } from "../session";
import { ProblemBox } from "./feedback";

interface Props {
  children: string;
  /** The least role that may. */
  role: Role;
  act: () => Promise<unknown>;
  /** The queries, by the first part of their key, that are old afterwards. */
  touches: string[];
  tone?: "primary" | "danger";
  /** Asked first. */
  question?: ReactNode;
  disabled?: boolean;
  onDone?: () => void;
}

export function Act({ children, role, act, touches, tone, question, disabled, onDone }: Props) {
  const may = useMay(role);
  const queries = useQueryClient();
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  const change = useMutation({
    mutationFn: act,
    onSuccess: () => {
      dialog.current?.close();
      onDone?.();
      return Promise.all(touches.map((key) => queries.invalidateQueries({ queryKey: [key] })));
    },
    onError: () => {
      if (dialog.current !== null && !dialog.current.open) dialog.current.showModal();
    },
  });
  const start = () => {
    change.reset();
    if (question === undefined) change.mutate();
    else dialog.current?.showModal();
  };
  return (
    <>
      <button
        type="button"
        className={tone}
        disabled={!may || disabled === true || change.isPending}
        title={may ? undefined : `This needs the role ${role}`}
        onClick={start}
      >
        {children}
      </button>
      <dialog ref={dialog} aria-labelledby={id}>
        <div className="stack">
          <h2 id={id}>{children}</h2>
          {question !== undefined && <div>{question}</div>}
          {change.error != null && <ProblemBox error={change.error} />}
          <div className="actions">
            <button type="button" onClick={() => dialog.current?.close()}>
              {question === undefined ? "Close" : "Cancel"}
            </button>
            {question !== undefined && (
              <button type="button" className={tone ?? "primary"} disabled={change.isPending} onClick={() => change.mutate()}>
                {children}
              </button>
            )}
          </div>
        </div>
      </dialog>
    </>
  );
}

/** Says once above a group of buttons why they do nothing. */
export function NeedsRole({ role }: { role: Role }) {
  const may = useMay(role);
  if (may) return null;
  return <span className="soft small">Changes here need the role {role}.</span>;
}
