import type { Role } from "../api/types";

const RANK: Record<Role, number> = { viewer: 0, operator: 1, admin: 2 };

/** Is `role` at least `needed`? */
export function allows(role: Role, needed: Role): boolean {
  return RANK[role] >= RANK[needed];
}
