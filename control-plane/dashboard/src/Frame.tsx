// The frame around every view: navigation, who is logged in, the theme. Without a log-in it is the log-in.
import { useQuery } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { NavLink, Outlet, ScrollRestoration, useLocation, useNavigation } from "react-router";
import { api, take } from "./api/client";
import { LiveProvider, useIsLive, usePolling } from "./api/live";
import { Skeleton } from "./parts/feedback";
import { useMay, useSession } from "./session";
import { setTheme, useTheme } from "./theme";
import { Login } from "./views/Login";

export function Frame() {
  const { me, isAsking } = useSession();
  if (isAsking) {
    return (
      <main>
        <Skeleton lines={6} />
      </main>
    );
  }
  if (me === undefined) return <Login />;
  return (
    <LiveProvider>
      <Inside />
    </LiveProvider>
  );
}

function Inside() {
  const main = useRef<HTMLElement>(null);
  const { pathname } = useLocation();
  const { state } = useNavigation();
  const first = useRef(pathname);
  // A change of the view is told to whoever does not see it.
  useEffect(() => {
    if (first.current !== pathname) main.current?.focus({ preventScroll: true });
    first.current = pathname;
  }, [pathname]);
  return (
    <div className="frame">
      <a className="skip" href="#main">
        Skip to the content
      </a>
      {/* Another page is another way through the menu: it closes by itself. */}
      <Side key={pathname} />
      <main id="main" ref={main} tabIndex={-1} aria-busy={state === "loading"}>
        <Outlet />
      </main>
      <ScrollRestoration />
    </div>
  );
}

interface Item {
  to: string;
  name: string;
  count?: number;
}

function Side() {
  const [isOpen, setOpen] = useState(false);
  const isAdmin = useMay("admin");
  const polling = usePolling();
  const { data } = useQuery({
    queryKey: ["overview"],
    queryFn: () => take(api.GET("/api/v1/overview")),
    refetchInterval: polling,
  });
  const groups: Array<[string, Item[]]> = [
    [
      "Fleet",
      [
        { to: "/", name: "Overview" },
        { to: "/devices", name: "Devices" },
        { to: "/rollouts", name: "Rollouts" },
        { to: "/incidents", name: "Incidents", count: data?.incidents.open },
      ],
    ],
    [
      "Models",
      [
        { to: "/models", name: "Versions" },
        { to: "/jobs", name: "Searches and jobs" },
        { to: "/datasets", name: "Data sets" },
        { to: "/feedback", name: "Feedback" },
      ],
    ],
    ...(isAdmin
      ? ([["Administration", [{ to: "/audit", name: "Audit log" }, { to: "/access", name: "Users and tokens" }]]] as Array<
          [string, Item[]]
        >)
      : []),
  ];
  return (
    <div className={isOpen ? "side open" : "side"}>
      <div className="top">
        <NavLink className="brand" to="/" end>
          <img src="/favicon.svg" alt="" />
          Edgewright
        </NavLink>
        <button className="menu-button" type="button" aria-expanded={isOpen} aria-controls="menu" onClick={() => setOpen(!isOpen)}>
          Menu
        </button>
      </div>
      <nav id="menu" aria-label="Main">
        {groups.map(([name, items]) => (
          <div key={name}>
            <h2>{name}</h2>
            <ul>
              {items.map(({ to, name: item, count }) => (
                <li key={to}>
                  <NavLink to={to} end={to === "/"}>
                    {item}
                    {count !== undefined && count > 0 && (
                      <span className="count" aria-label={`${count} open`}>
                        {count}
                      </span>
                    )}
                  </NavLink>
                </li>
              ))}
            </ul>
          </div>
        ))}
      </nav>
      <Who />
    </div>
  );
}

function Who() {
  const { me, logout } = useSession();
  const isLive = useIsLive();
  const theme = useTheme();
  const other = theme === "dark" ? "light" : "dark";
  return (
    <div className="who">
      <span className="row soft" role="status">
        <i className={isLive ? "dot ok" : "dot warn"} aria-hidden="true" />
        {isLive ? "live" : "asking every 5 s"}
      </span>
      <span>
        <b>{me?.user}</b> <span className="soft">({me?.role})</span>
      </span>
      <span className="row">
        <button type="button" onClick={() => setTheme(other)}>
          {other === "dark" ? "Dark" : "Light"}
        </button>
        <button type="button" onClick={() => void logout()}>
          Log out
        </button>
      </span>
    </div>
  );
}
