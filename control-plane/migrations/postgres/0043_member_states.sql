-- Members of many rollouts are counted by their states.
CREATE INDEX rollout_members_states ON rollout_members (rollout, state);
