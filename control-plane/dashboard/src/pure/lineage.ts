// What a step of a lineage says of itself, for people.

/** Longest text of one value. */
const VALUE_MAX = 80;

/** Pairs of names and short texts; what is an object has no place in a line. */
export function knownDetails(details: Record<string, unknown>): Array<[string, string]> {
  return Object.entries(details).flatMap(([key, value]): Array<[string, string]> => {
    const text = asText(value);
    return text === undefined ? [] : [[key, text]];
  });
}

function asText(value: unknown): string | undefined {
  switch (typeof value) {
    case "string":
      return value.length > VALUE_MAX ? `${value.slice(0, VALUE_MAX)}…` : value;
    case "number":
      return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
    case "boolean":
      return value ? "yes" : "no";
    case "object":
      return Array.isArray(value) && value.every((part) => typeof part === "number") ? value.join("×") : undefined;
    default:
      return undefined;
  }
}
