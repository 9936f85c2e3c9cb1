// The live feed: one connection, whoever listens. It rests while the tab is hidden.
const listeners = new Set();
let source = null;
let step = 1;
let last = null;

export const feed = {
  hello: null,
  get last() { return last; },
  /** `listener({type, data})`: type is hello, tick, reset or lost. */
  listen(listener) { listeners.add(listener); },
  setStep(seconds) { if (seconds !== step) { step = seconds; open(); } },
  start() {
    document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
    open();
  },
};

function tell(type, data) { for (const listener of listeners) listener({ type, data }); }

function close() { source?.close(); source = null; }

function open() {
  close();
  tell("reset");
  const mine = (source = new EventSource(`/admin/live?step=${step}`));
  mine.addEventListener("hello", (event) => { feed.hello = JSON.parse(event.data); tell("hello", feed.hello); });
  mine.addEventListener("tick", (event) => { last = JSON.parse(event.data); tell("tick", last); });
  mine.addEventListener("error", async () => {
    if (mine !== source) return;
    tell("lost");
    if (mine.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
    close();
    const answer = await fetch("/admin/engines").catch(() => null);
    if (answer?.status === 401) location.reload(); // the session is over
    setTimeout(() => { if (!source && !document.hidden) open(); }, 2000);
  });
}
