// Drives Chromium through the steps of browser.rs, and prints one line of JSON for each step.

import { launch, origin } from "../browser.mjs";

const browser = await launch();

const print = (line) => console.log(JSON.stringify(line));

// Returns a tab of a browser of its own, in the case: without a login, with a login that is not
// fresh, as a user who may not do everything, and with a store that fails.
async function open(name) {
  const context = await browser.newContext();
  const tab = await context.newPage();
  await tab.request.get(`${origin}/store?down=false`);
  if (name === "not fresh") await tab.goto(`${origin}/log-in?user=notch&fresh=0`);
  if (name === "forbidden" || name === "store failed") await tab.goto(`${origin}/log-in?user=steve`);
  return tab;
}

const cases = {
  "not logged in": "/secret",
  "not fresh": "/recent",
  "forbidden": "/notch-only",
  "store failed": "/secret",
};

for (const [name, path] of Object.entries(cases)) {
  for (const version of ["htmx2", "htmx4"]) {
    for (const element of ["button", "form", "boosted link"]) {
      const tab = await open(name);
      await tab.goto(`${origin}/board?htmx=${version}&path=${path}`);
      if (name === "store failed") await tab.request.get(`${origin}/store?down=true`);
      const responded = tab.waitForResponse(
        (response) => new URL(response.url()).pathname === path,
      );
      await tab.click(`[data-test="${element}"]`);
      const response = await responded;
      // A redirect is followed at once, and a swap happens soon after the response.
      await tab.waitForLoadState("networkidle");
      await tab.waitForTimeout(100);
      const target = (await tab.$("#target")) ? await tab.textContent("#target") : "";
      print({
        client: version,
        element,
        case: name,
        status: response.status(),
        type: response.headers()["content-type"],
        url: tab.url().slice(origin.length),
        target: target.trim(),
      });
      await tab.request.get(`${origin}/store?down=false`);
      await tab.context().close();
    }
  }

  const tab = await open(name);
  await tab.goto(`${origin}/board?htmx=htmx2&path=${path}`);
  if (name === "store failed") await tab.request.get(`${origin}/store?down=true`);
  for (const client of ["fetch", "image", "EventSource", "WebSocket"]) {
    const outcome = await tab.evaluate(
      async ([client, path]) => {
        const settled = (target, good, bad) =>
          new Promise((resolve) => {
            target.addEventListener(good, () => resolve(good));
            target.addEventListener(bad, () => resolve(bad));
          });
        switch (client) {
          case "fetch": {
            const response = await fetch(path, { redirect: "manual" });
            const problem = await response.json();
            return `${response.status} ${problem.type.split(".").at(-2)} ${problem.max_age ?? ""}`;
          }
          case "image": {
            const image = new Image();
            image.src = path;
            return settled(image, "load", "error");
          }
          case "EventSource": {
            const source = new EventSource(path);
            const event = await settled(source, "open", "error");
            return `${event} ${source.readyState === EventSource.CLOSED}`;
          }
          case "WebSocket":
            return settled(new WebSocket(path.replace(/^/, `ws://${location.host}`)), "open", "error");
        }
      },
      [client, path],
    );
    print({ client, case: name, outcome: String(outcome).trim() });
  }
  // What was rejected in the background has left no message and no `next`.
  const cookies = await tab.context().cookies();
  print({ client: "background", case: name, cookies: cookies.map((cookie) => cookie.name).sort() });
  const response = await tab.goto(origin + path);
  print({
    client: "page",
    case: name,
    status: response.status(),
    url: tab.url().slice(origin.length),
    text: (await tab.textContent("body")).trim().split("\n")[0],
  });
  await tab.request.get(`${origin}/store?down=false`);
  await tab.context().close();
}
await browser.close();
