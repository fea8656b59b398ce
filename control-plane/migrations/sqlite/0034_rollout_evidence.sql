-- What a version showed, on the devices of a rollout: read by gates while one is open.
CREATE INDEX telemetry_by_version ON telemetry (version, device, received_at);
CREATE INDEX feedback_by_kind ON feedback (version, kind, device, received_at);
