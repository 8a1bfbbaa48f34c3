// Lets messages be taken, or not, as operators say.
import { EventEmitter, once } from "node:events";

export class Control {
  private held = false;
  private rest = new AbortController(); // of whoever takes messages
  private readonly news = new EventEmitter();

  obey(held: boolean): void {
    this.held = held;
    if (held) this.rest.abort();
    this.news.emit("told");
  }

  /** Waits until messages may be taken. What it returns ends when they may no longer be, or `end` does. */
  async taking(end: AbortSignal): Promise<AbortSignal> {
    while (this.held && !end.aborted) await once(this.news, "told", { signal: end }).catch(() => null);
    this.rest = new AbortController();
    return AbortSignal.any([end, this.rest.signal]);
  }
}
