// Who is logged in, and what that role may do.
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { createContext, useCallback, useContext, useEffect, useMemo, useState, type ReactNode } from "react";
import { api, take, whenSignedOut } from "./api/client";
import type { Me, Role } from "./api/types";
import { allows } from "./pure/roles";

/** Whether this browser has logged in: without, nothing is asked that would only be refused. */
const MARK = "edgewright.session";

interface Session {
  me: Me | undefined;
  isAsking: boolean;
  login: (user: string, password: string) => Promise<void>;
  logout: () => Promise<void>;
}

const Context = createContext<Session | undefined>(undefined);

function remembered(): boolean {
  try {
    return localStorage.getItem(MARK) === "1";
  } catch {
    return false;
  }
}

function remember(isIn: boolean): void {
  try {
    if (isIn) localStorage.setItem(MARK, "1");
    else localStorage.removeItem(MARK);
  } catch {
    // Without storage a reload asks for the password again.
  }
}

export function SessionProvider({ children }: { children: ReactNode }) {
  const queries = useQueryClient();
  const [isIn, setIn] = useState(remembered);
  const [isLeaving, setLeaving] = useState(false);

  const forget = useCallback(() => {
    remember(false);
    setIn(false);
    queries.clear();
  }, [queries]);
  useEffect(() => whenSignedOut(forget), [forget]);

  const { data, isPending } = useQuery({
    queryKey: ["me"],
    queryFn: () => take(api.GET("/api/v1/me")),
    enabled: isIn && !isLeaving,
    staleTime: 60_000,
  });

  const session = useMemo<Session>(
    () => ({
      me: isIn ? data : undefined,
      isAsking: isLeaving || (isIn && isPending),
      login: async (user, password) => {
        const given = await take(api.POST("/api/v1/login", { body: { user, password } }));
        queries.setQueryData(["me"], { user: given.user, role: given.role, expires_at: given.expires_at });
        remember(true);
        setIn(true);
      },
      logout: async () => {
        // The views go first: whatever they asked afterwards would be refused.
        setLeaving(true);
        await queries.cancelQueries();
        // Whatever the server says: this browser forgets.
        await take(api.POST("/api/v1/logout")).catch(() => undefined);
        forget();
        setLeaving(false);
      },
    }),
    [data, forget, isIn, isLeaving, isPending, queries],
  );
  return <Context value={session}>{children}</Context>;
}

export function useSession(): Session {
  const session = useContext(Context);
  if (session === undefined) throw new Error("no session around this part");
  return session;
}

/** May whoever is logged in do what needs `role`? */
export function useMay(role: Role): boolean {
  const { me } = useSession();
  return me !== undefined && allows(me.role, role);
}
