// One chart on a canvas. Loaded when the first chart is shown.
import { useEffect, useRef } from "react";
import { useTheme } from "../theme";
import { init, type Engine, type Option } from "./engine";
import { palette, type Palette } from "./options";

export interface PlotProps {
  option: (colours: Palette) => Option;
  /** Says what is to be seen, for whoever does not see it. */
  label: string;
  size?: "low" | "tall";
  onPick?: (data: unknown) => void;
}

export default function Plot({ option, label, size, onPick }: PlotProps) {
  const theme = useTheme();
  const holder = useRef<HTMLDivElement>(null);
  const engine = useRef<Engine>(null);

  useEffect(() => {
    const element = holder.current;
    if (element === null) return undefined;
    const made = init(element, null, { renderer: "canvas" });
    engine.current = made;
    const observer = new ResizeObserver(() => made.resize());
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.dispose();
      engine.current = null;
    };
  }, []);

  useEffect(() => {
    engine.current?.setOption(option(palette(theme)), { notMerge: true });
  }, [option, theme]);

  useEffect(() => {
    const made = engine.current;
    if (made === null || onPick === undefined) return undefined;
    const pick = (event: { data?: unknown }) => onPick(event.data);
    made.on("click", pick);
    return () => {
      made.off("click", pick);
    };
  }, [onPick]);

  return <div ref={holder} className={`chart ${size ?? ""}`} role="img" aria-label={label} />;
}
