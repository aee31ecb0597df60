// Helpers for the scripts that drive Chromium.
// usage: node SCRIPT DIRECTORY CHROMIUM SCREENSHOTS ORIGIN
// DIRECTORY has the packages of tests/clients/package.json.

import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const [directory, executablePath, screenshots, origin] = process.argv.slice(2);
const { chromium } = createRequire(resolve(directory, "package.json"))("playwright-core");

const options = {
  executablePath,
  // Browsers of users keep pages in memory for the back button.
  ignoreDefaultArgs: ["--disable-back-forward-cache"],
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
};

export { origin };

// A browser in which each context is a device without cookies.
export const launch = () => chromium.launch(options);

// A device whose browser can be closed and opened again. It keeps its cookies on disk, in a directory
// that is removed when the script ends.
export class Device {
  #profile = mkdtempSync(join(tmpdir(), "tower-keep-profile-"));
  #context;

  // Opens the browser, and returns a tab.
  async open() {
    this.#context = await chromium.launchPersistentContext(this.#profile, {
      ...options,
      viewport: { width: 900, height: 700 },
    });
    lastTab = this.#context.pages()[0] ?? (await this.#context.newPage());
    return lastTab;
  }

  newTab = () => this.#context.newPage();
  cookies = () => this.#context.cookies();
  close = () => this.#context.close();

  constructor() {
    process.on("exit", () => rmSync(this.#profile, { recursive: true, force: true, maxRetries: 3 }));
  }
}

// Returns the path and the query of the page in this tab.
export const target = (tab) => tab.url().slice(origin.length);

let screenshotCount = 0;
let lastTab;

// Keeps a picture of the tab as a part of the test's output.
export async function keepScreenshot(tab, name) {
  screenshotCount += 1;
  const number = String(screenshotCount).padStart(2, "0");
  await tab.screenshot({ path: join(screenshots, `${number}-${name}.png`) });
}

// Runs a step, and prints its name once it has succeeded. Ends the process if the step takes longer
// than a minute.
export async function step(name, run) {
  const timeout = setTimeout(() => {
    console.error(`${name}: still running after a minute`);
    process.exit(1);
  }, 60_000);
  try {
    await run();
  } catch (error) {
    if (lastTab && !lastTab.isClosed()) await keepScreenshot(lastTab, "failed");
    throw new Error(name, { cause: error });
  }
  clearTimeout(timeout);
  console.log(name);
}
