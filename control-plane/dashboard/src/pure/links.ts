// Links that the server gives name resources of the API; a person wants their view.

const VIEWS: Record<string, string> = {
  devices: "devices",
  rollouts: "rollouts",
  versions: "models",
  jobs: "jobs",
  incidents: "incidents",
};

/** The view of a link such as `/api/v1/rollouts/ID` or `/rollouts/ID`; nothing where there is none. */
export function viewOf(link: string | null | undefined): string | undefined {
  const match = /^(?:\/api\/v1)?\/([a-z]+)\/([^/?#]+)$/.exec(link ?? "");
  const view = VIEWS[match?.[1] ?? ""];
  return view === undefined ? undefined : `/${view}/${match?.[2] ?? ""}`;
}
