import { api, take } from "../api/client";
import type { Incident } from "../api/types";
import { Act } from "../parts/Act";

const TOUCHES = ["incidents", "overview"];

/** What may be done about an incident that is open. */
export function IncidentOrders({ incident }: { incident: Incident }) {
  if (incident.resolved_at != null) return null;
  const path = { incident: incident.id };
  return (
    <span className="row">
      {incident.acknowledged_at == null && (
        <Act role="operator" touches={TOUCHES} act={() => take(api.POST("/api/v1/incidents/{incident}/acknowledge", { params: { path } }))}>
          Acknowledge
        </Act>
      )}
      <Act role="operator" touches={TOUCHES} act={() => take(api.POST("/api/v1/incidents/{incident}/resolve", { params: { path } }))}>
        Resolve
      </Act>
    </span>
  );
}
