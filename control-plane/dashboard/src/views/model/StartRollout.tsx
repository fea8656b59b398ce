// A rollout with the usual policy, from a form. What needs gates, windows or a budget comes with a policy file.
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useId, useRef, useState } from "react";
import { useNavigate } from "react-router";
import { api, take } from "../../api/client";
import type { Version } from "../../api/types";
import { ProblemBox } from "../../parts/feedback";
import { readLabels, readWaves } from "../../pure/forms";
import { useMay } from "../../session";

export function StartRollout({ version }: { version: Version }) {
  const may = useMay("operator");
  const queries = useQueryClient();
  const navigate = useNavigate();
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  const [slot, setSlot] = useState("default");
  const [waves, setWaves] = useState("1, 10%, 100%");
  const [only, setOnly] = useState("");
  const read = readWaves(waves);
  const labels = readLabels(only);
  const create = useMutation({
    mutationFn: () =>
      take(
        api.POST("/api/v1/rollouts", {
          body: {
            version: version.name,
            slot,
            selector: { devices: [], labels: labels ?? {} },
            policy: { waves: "waves" in read ? read.waves : [] },
          },
        }),
      ),
    onSuccess: async (rollout) => {
      dialog.current?.close();
      await queries.invalidateQueries({ queryKey: ["rollouts"] });
      await navigate(`/rollouts/${rollout.id}`);
    },
  });
  return (
    <>
      <button
        className="primary"
        type="button"
        disabled={!may}
        title={may ? undefined : "This needs the role operator"}
        onClick={() => {
          create.reset();
          dialog.current?.showModal();
        }}
      >
        Roll out
      </button>
      <dialog ref={dialog} aria-labelledby={id}>
        <form
          className="stack"
          onSubmit={(event) => {
            event.preventDefault();
            create.mutate();
          }}
        >
          <h2 id={id}>Roll {version.name} out</h2>
          <label>
            Slot
            <input value={slot} required onChange={(event) => setSlot(event.target.value)} />
          </label>
          <label>
            Waves: numbers, shares or labels
            <input value={waves} required onChange={(event) => setWaves(event.target.value)} />
          </label>
          <label>
            Only devices with these labels
            <input value={only} placeholder="ring=canary" onChange={(event) => setOnly(event.target.value)} />
          </label>
          {"wrong" in read && <p className="bad small">“{read.wrong}” is no wave: write 1, 10% or ring=canary.</p>}
          {labels === undefined && <p className="bad small">A label is written key=value.</p>}
          <p className="soft small">
            Gates, windows and budgets come with a policy file: <code>edgewright rollout create --policy FILE</code>
          </p>
          {create.error != null && <ProblemBox error={create.error} />}
          <div className="actions">
            <button type="button" onClick={() => dialog.current?.close()}>
              Cancel
            </button>
            <button className="primary" type="submit" disabled={"wrong" in read || labels === undefined || create.isPending}>
              Begin
            </button>
          </div>
        </form>
      </dialog>
    </>
  );
}
