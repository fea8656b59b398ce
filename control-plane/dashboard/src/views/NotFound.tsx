import { isRouteErrorResponse, Link, useRouteError } from "react-router";
import { Empty, ProblemBox } from "../parts/feedback";
import { Head } from "../parts/Head";

export function NotFound() {
  return (
    <>
      <Head title="Nothing here" />
      <Empty what="No view has this address">
        <Link to="/">To the overview</Link>
      </Empty>
    </>
  );
}

/** What stands in a view's place when it cannot be shown: after an update of the server its files have other names. */
export function Broken() {
  const error = useRouteError();
  return (
    <>
      <Head title="This view cannot be shown" />
      <ProblemBox error={isRouteErrorResponse(error) ? error.statusText : error} />
      <p>
        <button type="button" onClick={() => window.location.reload()}>
          Load the page again
        </button>
      </p>
    </>
  );
}
