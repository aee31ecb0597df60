// Uses the site in Chromium. The steps are in the order of browser.rs.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { Device, keepScreenshot, launch, origin, step, target } from "../../../tests/browser.mjs";

const SESSION = "__Host-Http-keep";
const REMEMBER = "__Host-Http-keep-remember";
const DEVICE = "__Host-Http-keep-device";
const PASSWORD = "analytical engine";
const DAY = 24 * 3600;

async function logIn(tab, { remember = false } = {}) {
  await tab.fill("[name=login]", "ada");
  await tab.fill("[name=password]", PASSWORD);
  if (remember) await tab.check("[name=remember]");
  await tab.click("main button");
  await tab.waitForLoadState();
}

const laptop = new Device();
let tab = await laptop.open();

await step("a login with remember me leads to the page that was wanted", async () => {
  await tab.goto(`${origin}/account`);
  assert.equal(target(tab), "/login?next=%2Faccount");
  assert.match(await tab.textContent("[role=status]"), /Please log in/);
  await keepScreenshot(tab, "login");
  await logIn(tab, { remember: true });
  assert.equal(target(tab), "/account");
  assert.match(await tab.innerText("dl"), /Login\s+ada\s+Fresh login\s+yes/);
  await keepScreenshot(tab, "account");
});

await step("scripts and other sites get no cookie", async () => {
  const cookies = Object.fromEntries((await laptop.cookies()).map((one) => [one.name, one]));
  assert.deepEqual(Object.keys(cookies).sort(), [SESSION, DEVICE, REMEMBER]);
  for (const cookie of Object.values(cookies)) {
    assert.equal(cookie.httpOnly, true);
    assert.equal(cookie.secure, true);
    assert.equal(cookie.sameSite, "Lax");
    assert.equal(cookie.path, "/");
    assert.equal(cookie.domain, new URL(origin).hostname);
  }
  assert.equal(cookies[SESSION].expires, -1, "ends with the browser");
  const days = (cookies[REMEMBER].expires - Date.now() / 1000) / DAY;
  assert.ok(days > 29.9 && days <= 30, `valid for ${days} days`);
  const year = (cookies[DEVICE].expires - Date.now() / 1000) / DAY;
  assert.ok(year > 364.9 && year <= 365, `valid for ${year} days`);
  assert.equal(await tab.evaluate(() => document.cookie), "");
});

await step("a browser that was closed is still logged in", async () => {
  await laptop.close();
  tab = await laptop.open();
  const names = (await laptop.cookies()).map((cookie) => cookie.name);
  assert.deepEqual(names.sort(), [DEVICE, REMEMBER]);
  await tab.goto(`${origin}/account`);
  assert.match(await tab.innerText("dl"), /Fresh login\s+no\s+Remembered on this device\s+yes/);
});

await step("a page for fresh logins asks for the password again", async () => {
  await tab.click("text=Change your password");
  assert.equal(target(tab), "/confirm?next=%2Fpassword");
  await keepScreenshot(tab, "confirm");
  await tab.fill("[name=password]", "wrong");
  await tab.click("main button");
  assert.match(await tab.textContent("[role=alert]"), /not your password/);
  await tab.fill("[name=password]", PASSWORD);
  await tab.click("main button");
  assert.equal(target(tab), "/password");
  assert.match(await tab.textContent("h1"), /Change your password/);
});

await step("a device that is ended asks for a login at its next click", async () => {
  const browser = await launch();
  const phone = await browser.newPage();
  await phone.goto(`${origin}/devices`);
  await logIn(phone);
  assert.equal(await phone.locator(".devices li").count(), 2);
  await tab.goto(`${origin}/devices`);
  await keepScreenshot(tab, "devices");
  await tab.locator(".devices li").filter({ hasNotText: "this device" }).locator("button").click();
  await tab.waitForLoadState();
  assert.match(await tab.textContent("[role=status]"), /That device is logged out/);
  assert.equal(await tab.locator(".devices li").count(), 1);
  await phone.click("text=Account");
  assert.equal(target(phone), "/login?next=%2Faccount");
  await browser.close();
});

await step("a logout in one tab ends the login of the other", async () => {
  const other = await laptop.newTab();
  await other.goto(`${origin}/account`);
  await tab.click("text=Log out");
  assert.equal(target(tab), "/login");
  assert.deepEqual((await laptop.cookies()).map((cookie) => cookie.name), [DEVICE]);
  await other.click("nav >> text=Devices");
  assert.equal(target(other), "/login?next=%2Fdevices");
  await other.close();
});

await step("the back button shows nothing after a logout", async () => {
  // This browser does keep pages in memory: a page without a user comes back from there.
  await tab.goto(`${origin}/login`);
  await tab.evaluate(() => {
    window.addEventListener("pageshow", (event) => { document.title = `kept: ${event.persisted}`; });
  });
  await tab.goto(`${origin}/`);
  await tab.evaluate(() => history.back());
  await tab.waitForFunction(() => document.title === "kept: true");
  await tab.goto(`${origin}/login`);
  await logIn(tab);
  await tab.goto(`${origin}/devices`);
  await tab.click("text=Log out");
  assert.equal(target(tab), "/login");
  for (const page of ["/devices", "/account"]) {
    await tab.evaluate(() => history.back());
    await tab.waitForURL(`${origin}/login?next=${encodeURIComponent(page)}`);
    assert.doesNotMatch(await tab.textContent("body"), /ada|Active now|Fresh login/);
    await keepScreenshot(tab, "back-after-logout");
  }
});

await step("a page of another site can log nobody in or out", async () => {
  // Another host is another site, although it is the same machine.
  const attacker = createServer((request, response) => {
    const path = new URL(request.url, "http://localhost").searchParams.get("path");
    response.setHeader("content-type", "text/html").end(
      `<form method=post action="${origin}${path}">
       <input name=login value=ada><input name=password value="${PASSWORD}"></form>
       <script>document.forms[0].submit()</script>`,
    );
  });
  await new Promise((resolve) => attacker.listen(0, "localhost", resolve));
  const foreign = `http://localhost:${attacker.address().port}`;
  const submit = async (path) => {
    const victim = await laptop.newTab();
    const responded = victim.waitForResponse((response) => response.url() === origin + path);
    await victim.goto(`${foreign}/?path=${path}`, { waitUntil: "commit" });
    const response = await responded;
    await victim.close();
    return response.status();
  };
  assert.equal(await submit("/login"), 403);
  const names = (await laptop.cookies()).map((cookie) => cookie.name);
  assert.deepEqual(names, [DEVICE], "not logged in as the attacker");

  await tab.goto(`${origin}/login`);
  await logIn(tab);
  assert.equal(await submit("/logout"), 403);
  await tab.goto(`${origin}/account`);
  assert.equal(target(tab), "/account");
  attacker.close();
});

await step("a stranger who guesses has to wait, and the user has not", async () => {
  const browser = await launch();
  const stranger = await browser.newPage();
  for (let guess = 0; guess < 6; guess += 1) {
    await stranger.goto(`${origin}/login`);
    await stranger.fill("[name=login]", "ada");
    await stranger.fill("[name=password]", `guess ${guess}`);
    await stranger.click("main button");
  }
  assert.match(await stranger.textContent("[role=alert]"), /Too many attempts\. Try again in \d+ seconds/);
  await keepScreenshot(stranger, "throttled");
  await tab.click("text=Log out");
  await logIn(tab);
  assert.equal(target(tab), "/account");
  await browser.close();
});

await step("a visitor signs up", async () => {
  const browser = await launch();
  const visitor = await browser.newPage();
  await visitor.goto(origin);
  await visitor.click("text=Sign up");
  await visitor.fill("[name=login]", "bob");
  await visitor.fill("[name=password]", "Password1");
  await visitor.click("main button");
  assert.match(await visitor.textContent("[role=alert]"), /This password is well known/);
  await keepScreenshot(visitor, "sign-up");
  await visitor.fill("[name=login]", "bob");
  await visitor.fill("[name=password]", "difference engine");
  await visitor.click("main button");
  assert.equal(target(visitor), "/account");
  assert.match(await visitor.innerText("dl"), /Login\s+bob/);
  await browser.close();
});

await laptop.close();
