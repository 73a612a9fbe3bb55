/**
 * Whether the program is to go on when its terminal is closed, as with nohup: whether SIGHUP was
 * ignored when it was started.
 *
 * It is looked up as the program is loaded. Deno does not keep to it: listeners for other signals,
 * workers and processes make SIGHUP end the program again, so that from here on it is listened to.
 *
 * @module
 */

/** Whether SIGHUP is ignored; `false` where Deno may not look. */
function ignoresHangup(): boolean {
  if (Deno.build.os === "windows") return false;
  try {
    const mask = Deno.build.os === "linux"
      ? /^SigIgn:\s*(\w+)$/m.exec(Deno.readTextFileSync("/proc/self/status"))![1]
      : askProcessTable();
    // SIGHUP is the first of all signals.
    return (parseInt(mask.trim().slice(-1), 16) & 1) === 1;
  } catch {
    return false;
  }
}

/** The signals that this process ignores, as bits of a hexadecimal number, as BSD and macOS tell. */
function askProcessTable(): string {
  const args = ["-o", "ignored=", "-p", String(Deno.pid)];
  return new TextDecoder().decode(new Deno.Command("ps", { args }).outputSync().stdout);
}

/** Whether the program was started to outlive its terminal. */
export const outlivesTerminal: boolean = ignoresHangup();

if (outlivesTerminal) Deno.addSignalListener("SIGHUP", () => {});
