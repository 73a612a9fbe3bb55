/**
 * A loss curve as SVG.
 *
 * @module
 */

/** A point of the log. */
export interface LogPoint {
  readonly step: number;
  readonly loss: number;
}

const WIDTH = 800, HEIGHT = 400, LEFT = 64, RIGHT = 16, TOP = 40, BOTTOM = 40;

/** The curve over a logarithmic axis: the points in grey, their running mean in colour. */
export function plotLoss(points: readonly LogPoint[], title: string): string {
  const good = points.filter((p) => p.loss > 0 && Number.isFinite(p.loss));
  const losses = good.length ? good.map((p) => p.loss) : [0.1, 1];
  const low = Math.log10(Math.min(...losses)) - 0.02, high = Math.log10(Math.max(...losses)) + 0.02;
  const last = Math.max(1, ...good.map((p) => p.step));
  const x = (step: number) => LEFT + step / last * (WIDTH - LEFT - RIGHT);
  const y = (loss: number) =>
    TOP + (high - Math.log10(loss)) / (high - low) * (HEIGHT - TOP - BOTTOM);
  const line = (values: readonly LogPoint[]) =>
    values.map((p) => `${x(p.step).toFixed(1)},${y(p.loss).toFixed(1)}`).join(" ");

  const span = Math.max(1, Math.round(good.length / 40));
  const smooth = good.map(({ step }, i) => {
    const window = good.slice(Math.max(0, i - span + 1), i + 1);
    return { step, loss: window.reduce((sum, p) => sum + p.loss, 0) / window.length };
  });
  const rows = ticks(low, high).map((loss) =>
    `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(loss)}" y2="${y(loss)}" stroke="#e4e4e7"/>` +
    `<text x="${LEFT - 8}" y="${y(loss) + 4}" text-anchor="end">${
      Number(loss.toPrecision(2))
    }</text>`
  );
  const columns = [0, 0.25, 0.5, 0.75, 1].map((share) => {
    const step = Math.round(share * last);
    return `<text x="${x(step)}" y="${HEIGHT - 16}" text-anchor="middle">${step}</text>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12" fill="#52525b">
<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>
<text x="${LEFT}" y="24" font-size="15" fill="#18181b">${escape(title)}</text>
${rows.join("\n")}
${columns.join("\n")}
<polyline fill="none" stroke="#d4d4d8" points="${line(good)}"/>
<polyline fill="none" stroke="#2563eb" stroke-width="2" points="${line(smooth)}"/>
</svg>
`;
}

/** Round numbers between two powers of ten. */
function ticks(low: number, high: number): number[] {
  const steps = high - low > 1 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9];
  const decades = Array.from({ length: 8 }, (_, i) => Math.floor(low) + i);
  return decades.flatMap((d) => steps.map((s) => s * 10 ** d))
    .filter((t) => Math.log10(t) >= low && Math.log10(t) <= high);
}

const escape = (text: string) => text.replace(/[&<>]/g, (c) => `&#${c.charCodeAt(0)};`);
