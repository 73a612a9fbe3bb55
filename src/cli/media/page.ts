/**
 * What self-contained HTML pages share: their frame and style, tiles of numbers, figures and tables.
 *
 * @module
 */

/** What a page says. */
export interface Page {
  readonly title: string;
  /** A word beside the title. */
  readonly state: string;
  /** Whether it loads itself again from time to time. */
  readonly isRunning?: boolean;
  /** Numbers to see first, HTML by name. */
  readonly tiles: Readonly<Record<string, string>>;
  /** Charts by name. */
  readonly charts: Readonly<Record<string, string>>;
  /** What comes below, HTML. */
  readonly rest: string;
}

/** The page. */
export function renderPage({ title, state, isRunning, tiles, charts, rest }: Page): string {
  return `<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
${isRunning ? '<meta http-equiv="refresh" content="30">\n' : ""}<title>${escape(title)}</title>
<style>${STYLE}</style>
<header><h1>${escape(title)}</h1><p class="state">${state}</p></header>
<dl class="tiles">${
    Object.entries(tiles).map(([k, v]) => `<div><dt>${k}</dt><dd>${v}</dd></div>`).join("")
  }</dl>
<section class="charts">
${
    Object.entries(charts)
      .map(([name, chart]) => `<figure><figcaption>${name}</figcaption>${chart}</figure>`).join(
        "\n",
      )
  }
</section>
${rest}
</html>
`;
}

/** A picture within the page. */
export const renderPicture = (alt: string, caption: string, png: Uint8Array): string =>
  `<figure><img alt="${escape(alt)}" src="data:image/png;base64,${png.toBase64()}">` +
  `<figcaption>${escape(caption)}</figcaption></figure>`;

/** Names and values. */
export function renderTable(fields: unknown): string {
  const rows = Object.entries(Object(fields) as object).filter(([name]) => !name.startsWith("_"));
  const text = (value: unknown) => typeof value === "string" ? value : JSON.stringify(value);
  return `<table>${
    rows.map(([name, value]) =>
      `<tr><th>${escape(name)}</th><td>${escape(text(value) ?? "")}</td></tr>`
    ).join("")
  }</table>`;
}

/** Text as HTML. */
export const escape = (text: string): string =>
  text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

const STYLE = `
:root { color-scheme: light dark; --paper: #fafafa; --card: #fff; --ink: #18181b; --soft: #71717a;
  --rule: #e4e4e7; --faint: #c8d3e8; --a: #2563eb; --b: #ea580c; --c: #16a34a; --d: #9333ea; }
@media (prefers-color-scheme: dark) { :root { --paper: #111113; --card: #1b1b1f; --ink: #ededf0;
  --soft: #9d9da7; --rule: #2e2e34; --faint: #34435f; --a: #6ea0ff; --b: #ff9a52; --c: #4ad07d;
  --d: #c084fc; } }
body { margin: 0 auto; max-width: 1320px; padding: 24px; background: var(--paper); color: var(--ink);
  font: 14px/1.45 system-ui, sans-serif; }
header { display: flex; align-items: baseline; gap: 14px; }
h1 { font-size: 24px; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 17px; margin: 32px 0 12px; }
.state { margin: 0; padding: 2px 10px; border-radius: 99px; background: var(--rule); font-size: 12px; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0; }
.tiles div { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 10px 18px; min-width: 110px; }
dt { color: var(--soft); font-size: 12px; } dd { margin: 0; font-size: 22px; font-weight: 600; }
dd small { font-size: 13px; font-weight: 400; color: var(--soft); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)); gap: 14px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 12px 14px; } figcaption { font-weight: 600; margin-bottom: 6px; }
svg { display: block; width: 100%; font-size: 12px; } svg text { fill: var(--soft); }
.rule { stroke: var(--rule); } polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
polyline.faint { stroke-width: 1; } .faint { stroke: var(--faint); --mark: var(--faint); }
.a { stroke: var(--a); --mark: var(--a); } .b { stroke: var(--b); --mark: var(--b); }
.c { stroke: var(--c); --mark: var(--c); } .d { stroke: var(--d); --mark: var(--d); }
circle { fill: var(--mark); stroke: none; }
.legend { margin: 6px 0 0; display: flex; flex-wrap: wrap; gap: 4px 16px; color: var(--soft);
  font-size: 12px; } .legend i { display: inline-block; width: 14px; height: 3px; margin-right: 6px;
  vertical-align: middle; background: var(--mark); border-radius: 2px; } .none { color: var(--soft); }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 14px; }
.samples figcaption { font-weight: 400; color: var(--soft); margin: 6px 0 0; font-size: 12px; }
.samples img { width: 100%; display: block; border-radius: 4px; image-rendering: pixelated; }
.sheet img { width: 100%; display: block; image-rendering: pixelated; }
.sheet { margin-bottom: 14px; } .sheet figcaption { font-weight: 400; color: var(--soft); }
rect { fill: var(--mark); stroke: none; fill-opacity: 0.55; }
table { border-collapse: collapse; } th, td { text-align: left; vertical-align: top;
  padding: 3px 18px 3px 0; } th { font-weight: 400; color: var(--soft); white-space: nowrap; }
td { overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: 13px; }
details { margin-top: 10px; } summary { cursor: pointer; font-weight: 600; }
`;
