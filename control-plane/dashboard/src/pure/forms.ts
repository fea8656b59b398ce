// A rollout as a person writes it in a form.
import type { Wave } from "../api/types";

/** Reads `1, 10%, ring=late, 100%`; the first part that says nothing is named. */
export function readWaves(text: string): { waves: Wave[] } | { wrong: string } {
  const waves: Wave[] = [];
  for (const part of text.split(",").map((one) => one.trim())) {
    const percent = /^(\d+)\s*%$/.exec(part)?.[1];
    const label = /^([^=\s]+)=(\S+)$/.exec(part);
    if (percent !== undefined && Number(percent) >= 1 && Number(percent) <= 100) waves.push({ percent: Number(percent) });
    else if (/^[1-9]\d*$/.test(part)) waves.push({ count: Number(part) });
    else if (label?.[1] !== undefined && label[2] !== undefined) waves.push({ label: { key: label[1], value: label[2] } });
    else return { wrong: part };
  }
  return { waves };
}

/** Reads `key=value` words; nothing where one is no such word. */
export function readLabels(text: string): Record<string, string> | undefined {
  const words = text.split(/[\s,]+/).filter((word) => word !== "");
  const pairs = words.map((word) => word.split(/=(.*)/s).slice(0, 2));
  if (pairs.some(([key, value]) => !key || value === undefined)) return undefined;
  return Object.fromEntries(pairs as Array<[string, string]>);
}
