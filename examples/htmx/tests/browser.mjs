// Uses the site in Chromium. The steps are in the order of browser.rs.

import assert from "node:assert/strict";
import { Device, keepScreenshot, origin, step, target } from "../../../tests/browser.mjs";

const PASSWORD = "analytical engine";

const laptop = new Device();
let tab = await laptop.open();
const tasks = () => tab.locator("#tasks li").allTextContents();

async function add(task) {
  await tab.fill("[name=task]", task);
  await tab.click("text=Add");
}

async function logIn(remember) {
  await tab.fill("[name=login]", "ada");
  await tab.fill("[name=password]", PASSWORD);
  await tab.setChecked("[name=remember]", remember);
  await tab.click("form button");
  await tab.waitForLoadState(); // htmx has bound the form then
}

await step("after the login, htmx puts new tasks into the page", async () => {
  await tab.goto(origin);
  assert.equal(target(tab), "/login?next=%2F");
  await logIn(true);
  assert.equal(target(tab), "/");
  await add("buy punch cards");
  await tab.waitForSelector("li:text('buy punch cards')");
  await keepScreenshot(tab, "tasks");
});

await step("after a logout in another tab, a button leads to the login page and back", async () => {
  const other = await laptop.newTab();
  await other.goto(origin);
  await other.click("text=Log out");
  assert.equal(target(other), "/login");
  await other.close();
  await add("oil the engine");
  await tab.waitForURL(`${origin}/login?next=%2F`);
  await keepScreenshot(tab, "login");
  await logIn(true);
  assert.equal(target(tab), "/");
  assert.deepEqual(await tasks(), ["buy punch cards"]);
});

await step("a button for fresh logins leads to the confirm page and back", async () => {
  await laptop.close();
  tab = await laptop.open();
  await tab.goto(origin);
  await tab.click("text=Clear");
  await tab.waitForURL(`${origin}/confirm?next=%2F`);
  await keepScreenshot(tab, "confirm");
  await tab.fill("[name=password]", PASSWORD);
  await tab.click("form button");
  await tab.waitForLoadState();
  assert.equal(target(tab), "/");
  assert.deepEqual(await tasks(), ["buy punch cards"]);
  await tab.click("text=Clear");
  await tab.waitForFunction(() => document.querySelectorAll("#tasks li").length === 0);
});

await laptop.close();
