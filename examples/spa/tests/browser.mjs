// Uses the page in Chromium. The steps are in the order of browser.rs.

import assert from "node:assert/strict";
import { Device, keepScreenshot, origin, step } from "../../../tests/browser.mjs";

const PASSWORD = "analytical engine";

const laptop = new Device();
let tab = await laptop.open();
const isShown = (id) => tab.locator(`dialog#${id}`).isVisible();
const notes = () => tab.locator("#notes li").allTextContents();
const submit = (id) => tab.click(`dialog#${id} button`);

async function add(note) {
  await tab.fill("#note", note);
  await tab.click("#add button");
}

async function logIn({ password = PASSWORD, remember = false } = {}) {
  await tab.waitForSelector("dialog#log-in[open]");
  await tab.fill("#log-in [name=login]", "ada");
  await tab.fill("#log-in [name=password]", password);
  await tab.setChecked("#log-in [name=remember]", remember);
  await submit("log-in");
}

await step("the first call asks for a login", async () => {
  await tab.goto(origin);
  await logIn({ password: "wrong" });
  await tab.waitForSelector("text=Wrong login name or password.");
  await keepScreenshot(tab, "wrong-password");
  await logIn({ remember: true });
  await tab.waitForSelector("text=You are ada.");
  assert.equal(await isShown("log-in"), false);
});

await step("a fresh login may delete at once", async () => {
  await add("buy punch cards");
  await tab.waitForSelector("li:text('buy punch cards')");
  await keepScreenshot(tab, "notes");
  await tab.click("#delete");
  await tab.waitForFunction(() => document.querySelectorAll("li").length === 0);
});

await step("a remembered login may add, and confirms before it deletes", async () => {
  await laptop.close();
  tab = await laptop.open();
  await tab.goto(origin);
  await tab.waitForSelector("text=You are ada.");
  await add("oil the engine");
  await tab.waitForSelector("li:text('oil the engine')");
  await tab.click("#delete");
  await tab.waitForSelector("dialog#confirm[open]");
  assert.deepEqual(await notes(), ["oil the engine"]);
  await keepScreenshot(tab, "confirm");
  await tab.fill("#confirm [name=password]", "wrong");
  await submit("confirm");
  await tab.waitForSelector("text=This is not your password.");
  await tab.fill("#confirm [name=password]", PASSWORD);
  await submit("confirm");
  await tab.waitForFunction(() => document.querySelectorAll("li").length === 0);
});

await step("after a logout in another tab, the next call asks for a login and is repeated", async () => {
  const other = await laptop.newTab();
  await other.goto(origin);
  await other.waitForSelector("text=You are ada.");
  await other.click("#log-out");
  await other.waitForSelector("dialog#log-in[open]");
  // What is left says that the user has logged in here before, and logs nobody in.
  const left = (await laptop.cookies()).map((cookie) => cookie.name);
  assert.deepEqual(left, ["__Host-Http-keep-device"]);
  await add("write note G");
  await logIn();
  await tab.waitForSelector("li:text('write note G')");
  assert.deepEqual(await notes(), ["write note G"]);
});

await laptop.close();
