// Which view stands at which path. Each but the first comes when it is asked for.
import type { ComponentType } from "react";
import { createBrowserRouter } from "react-router";
import { Frame } from "./Frame";
import { Broken, NotFound } from "./views/NotFound";
import { Overview } from "./views/Overview";

const view = (load: () => Promise<{ default: ComponentType }>) => async () => ({ Component: (await load()).default });

export const routes = createBrowserRouter([
  {
    path: "/",
    Component: Frame,
    ErrorBoundary: Broken,
    HydrateFallback: () => null,
    children: [
      {
        ErrorBoundary: Broken,
        children: [
          { index: true, Component: Overview },
          { path: "devices", lazy: view(() => import("./views/Devices")) },
          { path: "devices/:device", lazy: view(() => import("./views/Device")) },
          { path: "rollouts", lazy: view(() => import("./views/Rollouts")) },
          { path: "rollouts/:rollout", lazy: view(() => import("./views/Rollout")) },
          { path: "models", lazy: view(() => import("./views/Models")) },
          { path: "models/:version", lazy: view(() => import("./views/Version")) },
          { path: "jobs", lazy: view(() => import("./views/Jobs")) },
          { path: "jobs/:job", lazy: view(() => import("./views/Job")) },
          { path: "datasets", lazy: view(() => import("./views/Datasets")) },
          { path: "feedback", lazy: view(() => import("./views/Feedback")) },
          { path: "incidents", lazy: view(() => import("./views/Incidents")) },
          { path: "incidents/:incident", lazy: view(() => import("./views/Incident")) },
          { path: "audit", lazy: view(() => import("./views/Audit")) },
          { path: "access", lazy: view(() => import("./views/Access")) },
          { path: "*", Component: NotFound },
        ],
      },
    ],
  },
]);
