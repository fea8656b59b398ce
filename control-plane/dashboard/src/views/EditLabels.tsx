import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useId, useRef, useState } from "react";
import { api, take } from "../api/client";
import type { Device } from "../api/types";
import { ProblemBox } from "../parts/feedback";
import { readLabels } from "../pure/forms";
import { useMay } from "../session";

function asText(labels: Record<string, string>): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(" ");
}

export function EditLabels({ device }: { device: Device }) {
  const may = useMay("operator");
  const queries = useQueryClient();
  const dialog = useRef<HTMLDialogElement>(null);
  const [text, setText] = useState("");
  const id = useId();
  const labels = readLabels(text);
  const save = useMutation({
    mutationFn: () =>
      take(api.PUT("/api/v1/devices/{device}/labels", { params: { path: { device: device.id } }, body: labels ?? {} })),
    onSuccess: () => {
      dialog.current?.close();
      return queries.invalidateQueries({ queryKey: ["device", device.id] });
    },
  });
  const open = () => {
    setText(asText(device.labels));
    save.reset();
    dialog.current?.showModal();
  };
  return (
    <>
      <button type="button" disabled={!may} title={may ? undefined : "This needs the role operator"} onClick={open}>
        Edit labels
      </button>
      <dialog ref={dialog} aria-labelledby={id}>
        <form
          className="stack"
          onSubmit={(event) => {
            event.preventDefault();
            save.mutate();
          }}
        >
          <h2 id={id}>Labels of {device.id}</h2>
          <label>
            As key=value, with spaces between
            <input value={text} onChange={(event) => setText(event.target.value)} placeholder="ring=canary site=berlin" />
          </label>
          {labels === undefined && <p className="bad small">A label is written key=value.</p>}
          {save.error != null && <ProblemBox error={save.error} />}
          <div className="actions">
            <button type="button" onClick={() => dialog.current?.close()}>
              Cancel
            </button>
            <button className="primary" type="submit" disabled={labels === undefined || save.isPending}>
              Save
            </button>
          </div>
        </form>
      </dialog>
    </>
  );
}
