// What an operator may order, as far as it makes sense at this moment.
import { api, take } from "../../api/client";
import type { Rollout } from "../../api/types";
import { Act, NeedsRole } from "../../parts/Act";
import { isFinal, waitingForApproval, waitsForEvidence } from "../../pure/waves";

const TOUCHES = ["rollouts", "overview"];

export function Orders({ rollout }: { rollout: Rollout }) {
  if (isFinal(rollout.state)) return null;
  const order = (order: "pause" | "resume" | "abort") => () =>
    take(api.POST("/api/v1/rollouts/{rollout}/{order}", { params: { path: { rollout: rollout.id, order } } }));
  const unapproved = waitingForApproval(rollout);
  const path = { rollout: rollout.id };
  return (
    <>
      <NeedsRole role="operator" />
      {unapproved !== undefined && (
        <Act
          role="operator"
          tone="primary"
          touches={TOUCHES}
          act={() => take(api.POST("/api/v1/rollouts/{rollout}/approve", { params: { path }, body: { wave: unapproved } }))}
          question={`Wave ${unapproved + 1} begins as soon as the one before is through and its gates are open.`}
        >
          {`Approve wave ${unapproved + 1}`}
        </Act>
      )}
      {waitsForEvidence(rollout) && (
        <Act
          role="operator"
          touches={TOUCHES}
          act={() => take(api.POST("/api/v1/rollouts/{rollout}/waive", { params: { path }, body: { wave: rollout.wave } }))}
          question={`The gates behind wave ${rollout.wave + 1} do without more evidence. What a gate stops is stopped still.`}
        >
          Waive the gates
        </Act>
      )}
      {rollout.state === "running" ? (
        <Act role="operator" touches={TOUCHES} act={order("pause")}>
          Pause
        </Act>
      ) : (
        <Act role="operator" tone="primary" touches={TOUCHES} act={order("resume")}>
          Resume
        </Act>
      )}
      <Act
        role="operator"
        tone="danger"
        touches={TOUCHES}
        act={order("abort")}
        question="Devices that had not finished get back what they had; whoever waits never sees the version. This cannot be undone."
      >
        Abort
      </Act>
    </>
  );
}
