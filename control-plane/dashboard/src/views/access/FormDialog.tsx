// A form in a dialog.
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useId, useRef, type ReactNode } from "react";
import type { Role } from "../../api/types";
import { ProblemBox } from "../../parts/feedback";

interface Props<T> {
  /** The button that opens it. */
  open: string;
  title: string;
  submit: string;
  touches: string[];
  act: (form: FormData) => Promise<T>;
  onDone?: (given: T) => void;
  children: ReactNode;
}

export function FormDialog<T>({ open, title, submit, touches, act, onDone, children }: Props<T>) {
  const queries = useQueryClient();
  const dialog = useRef<HTMLDialogElement>(null);
  const form = useRef<HTMLFormElement>(null);
  const id = useId();
  const change = useMutation({
    mutationFn: act,
    onSuccess: (given) => {
      dialog.current?.close();
      form.current?.reset();
      onDone?.(given);
      return Promise.all(touches.map((key) => queries.invalidateQueries({ queryKey: [key] })));
    },
  });
  return (
    <>
      <button
        type="button"
        onClick={() => {
          change.reset();
          dialog.current?.showModal();
        }}
      >
        {open}
      </button>
      <dialog ref={dialog} aria-labelledby={id}>
        <form
          ref={form}
          className="stack"
          onSubmit={(event) => {
            event.preventDefault();
            change.mutate(new FormData(event.currentTarget));
          }}
        >
          <h2 id={id}>{title}</h2>
          {children}
          {change.error != null && <ProblemBox error={change.error} />}
          <div className="actions">
            <button type="button" onClick={() => dialog.current?.close()}>
              Cancel
            </button>
            <button className="primary" type="submit" disabled={change.isPending}>
              {submit}
            </button>
          </div>
        </form>
      </dialog>
    </>
  );
}

export const ROLES: readonly Role[] = ["viewer", "operator", "admin"];

const MAY: Record<Role, string> = {
  viewer: "viewer: looks at everything but secrets",
  operator: "operator: also jobs, rollouts, labels, incidents",
  admin: "admin: also users, tokens, keys, revocation",
};

export function RoleField({ chosen = "viewer" }: { chosen?: Role }) {
  return (
    <label>
      Role
      <select name="role" defaultValue={chosen}>
        {ROLES.map((role) => (
          <option key={role} value={role}>
            {MAY[role]}
          </option>
        ))}
      </select>
    </label>
  );
}
