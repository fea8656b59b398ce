// The one way to the server: typed by the OpenAPI document, with errors as the problems that it answers.
import createClient from "openapi-fetch";
import type { paths } from "./schema";
import type { Problem } from "./types";

/** Says that a change comes from this page: the form of another site cannot send a header. */
const CHANGES = { "X-Edgewright": "1" };

export const api = createClient<paths>({ baseUrl: "", headers: CHANGES, credentials: "same-origin" });

/** What the server, or the way to it, said instead of an answer. */
export class ApiError extends Error {
  readonly status: number;
  readonly title: string;

  constructor(status: number, title: string, detail: string) {
    super(detail);
    this.name = "ApiError";
    this.status = status;
    this.title = title;
  }
}

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** Called whenever the server no longer knows who asks. */
let onSignedOut: () => void = () => undefined;

export function whenSignedOut(listener: () => void): void {
  onSignedOut = listener;
}

/** Waits for an answer; throws an {@link ApiError} for anything else. */
export async function take<T>(asked: Promise<Answer<T>>): Promise<T> {
  let answer: Answer<T>;
  try {
    answer = await asked;
  } catch {
    throw new ApiError(0, "No answer", "The server cannot be reached. The page tries again by itself.");
  }
  const { data, error, response } = answer;
  if (response.ok) return data as T;
  const problem = asProblem(error);
  if (response.status === 401) onSignedOut();
  throw new ApiError(
    response.status,
    problem?.title ?? response.statusText,
    problem?.detail ?? `The server answered ${response.status}.`,
  );
}

function asProblem(error: unknown): Problem | undefined {
  const is = typeof error === "object" && error !== null && "detail" in error;
  return is ? (error as Problem) : undefined;
}
