"""Sends the same requests to real Flask-Login and to the parity server, and compares the responses.

    python differential.py --server target/debug/parity-server [--steps 2000] [--seed 1] [--server-sessions]

Each mode of session protection runs scripted walks first, and then random steps. A step is a request
of one of two browsers, or an event of a browser: the browser is closed, changes its User-Agent,
loses or garbles a cookie, or gets back its earlier cookies. The run compares the statuses (302 and
303 count as equal), the bodies (except those of redirects and 401) and the Location headers. At the
first difference, the run prints the last steps and ends.

The run leaves out four cases. In these cases Flask-Login's behaviour follows from where Flask-Login
keeps its data, and not from a rule about logins:

- A login view with strong protection. Flask keeps the flash message in the session, and a session
  that holds only a message is not bound to a client. So strong protection drops the session on
  every request, and with the session the remember cookie and the API token.
- A first request after a logout with strong protection, unless the request is `/username`. A login
  with a duration leaves the duration in the session if the remember cookie is missing at the
  logout, and such a session is not bound to a client either.
- A remember cookie that expires during the run, because Flask-Login leaves the cookie's expiry to
  the browser.
- A login after a login with a duration of zero or less, in the same session. Flask-Login keeps the
  duration in the session, so a later login without a duration gets the same duration. Only the
  scripted walks have such durations, each walk in a session of its own.

With --server-sessions, tower-keep uses server-side sessions, and the run leaves out a fifth case: a
browser that gets back earlier cookies. In Flask-Login, a copy of a cookie remains valid after a
logout and the next login. With server-side sessions, the copy becomes invalid.
"""

import argparse
import http.client
import random
import subprocess
import sys
import urllib.parse
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import time

HERE = Path(__file__).parent
AGENTS = ["Mozilla/5.0 one", "Mozilla/5.0 two", ""]
USERS = ["notch", "steve", "creeper", "sato"]


class Server:
    """A running server: real Flask-Login or tower-keep."""

    def __init__(self, command, options):
        self.process = subprocess.Popen(
            [*command, "--listen", "127.0.0.1:0", *options],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        line = self.process.stdout.readline()
        if not line.startswith("listening on http://"):
            raise SystemExit(f"{command} did not start; it said {line!r}")
        self.address = line.removeprefix("listening on http://").strip()
        self.connection = http.client.HTTPConnection(self.address, timeout=20)

    def request(self, method, target, headers):
        for attempt in (1, 2):
            try:
                self.connection.request(method, target, headers=headers)
                response = self.connection.getresponse()
                body = response.read()
                return response, body
            except (http.client.HTTPException, OSError):
                self.connection.close()
                if attempt == 2:
                    raise

    def stop(self):
        self.connection.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Browser:
    """A cookie jar and a User-Agent."""

    def __init__(self, server):
        self.server, self.agent, self.jar, self.saved = server, AGENTS[0], {}, {}

    def request(self, method, target):
        path = target.split("?")[0]
        now = time()
        self.jar = {k: c for k, c in self.jar.items() if c["expires"] is None or c["expires"] > now}
        cookies = "; ".join(
            f"{name}={cookie['value']}"
            for name, cookie in self.jar.items()
            if path == cookie["path"] or path.startswith(cookie["path"].rstrip("/") + "/")
        )
        headers = {"User-Agent": self.agent}
        if cookies:
            headers["Cookie"] = cookies
        response, body = self.server.request(method, target, headers)
        for field in response.headers.get_all("Set-Cookie") or []:
            self.keep(field)
        return self.trace(response, body)

    def keep(self, field):
        pair, *attributes = field.split(";")
        name, value = pair.strip().split("=", 1)
        attributes = dict(
            (a.strip().lower().split("=", 1) + [""])[:2] for a in attributes
        )
        expires = None
        if "max-age" in attributes:
            expires = time() + int(attributes["max-age"])
        elif "expires" in attributes:
            expires = parsedate_to_datetime(attributes["expires"]).timestamp()
        if expires is not None and expires <= time():
            self.jar.pop(name, None)
        else:
            path = attributes.get("path") or "/"
            self.jar[name] = {"value": value, "expires": expires, "path": path}

    def trace(self, response, body):
        status = 303 if response.status == 302 else response.status
        location = (response.headers.get("Location") or "").replace(self.server.address, "HOST")
        location = location.replace(urllib.parse.quote(self.server.address, safe=""), "HOST")
        free = status in (303, 401)
        return status, None if free else decoded(body.decode()), decoded(location)

    # The events of a browser: each method is the step of its name.

    def close(self):
        self.jar = {k: c for k, c in self.jar.items() if c["expires"] is not None}

    def change_agent(self, agent):
        self.agent = agent

    def lose(self, which):
        for name in self.named(which):
            del self.jar[name]

    def garble(self, which):
        for name in self.named(which):
            value = self.jar[name]["value"]
            middle = len(value) // 2
            # Each call makes the value longer, so a second call never restores the original value.
            self.jar[name]["value"] = value[:middle] + "x" + value[middle:]

    def named(self, which):
        """Returns the names of the session cookies if `which` is `session`, and else the name of the
        remember cookie. Flask keeps `next` in the session cookie, and tower-keep keeps `next` in the
        cookie `session-flash`. Every other cookie is the remember cookie."""
        sessions = ("session", "session-flash")
        return [name for name in self.jar if (name in sessions) == (which == "session")]

    def save(self):
        self.saved = {name: dict(cookie) for name, cookie in self.jar.items()}

    def restore(self):
        self.jar = {name: dict(cookie) for name, cookie in self.saved.items()}


def decoded(text):
    """Decodes a text until the text no longer changes. Werkzeug gives Flask-Login a URL that is
    partly decoded, and tower-keep keeps the URL as the client sent it. Fully decoded, both URLs are
    the same."""
    while (once := urllib.parse.unquote(text)) != text:
        text = once
    return text


QUERIES = ["", "?a=b", "?x=%E4%BD%90&y=%2F%2Fevil", "?q=a+b%20c~d", "?u=https://evil.example/"]


def scripted():
    """Yields the steps of walks that request every route, in an order that a user could choose."""
    looks = ["/username", "/is-auth", "/is-fresh", "/is-remembered", "/secret", "/sensitive"]
    walks = [["/hello", *looks, "/confirm", "/logout", "/next", "/token?token=notch-token"]]
    for user in [*USERS, "nobody"]:
        for more in ["", "&remember=1", "&fresh=0", "&force=1", "&force=1&remember=1",
                     "&remember=1&duration=0", "&remember=1&duration=-5",
                     "&remember=1&duration=3600", "&duration=x&remember=1"]:
            walks.append([f"/login?user={user}{more}", *looks, ("close",), *looks, "/confirm",
                          *looks, "/logout", *looks])
    walks.append(["/login?user=notch", ("change_agent", AGENTS[1]), *looks, "/confirm", *looks,
                  ("change_agent", AGENTS[0]), *looks])
    walks.append(["/login?user=notch&remember=1", ("change_agent", AGENTS[1]), "/is-remembered",
                  *looks, ("close",), *looks])
    walks.append(["/login?user=notch&remember=1", "/login?user=steve", ("close",), *looks])
    walks.append(["/login?user=notch&remember=1", ("garble", "remember"), *looks, ("close",),
                  *looks, "/token?token=steve-token"])
    walks.append(["/login?user=notch", ("garble", "session"), *looks])
    walks.append(["/token?token=notch-token", "/confirm?token=notch-token",
                  "/is-fresh?token=notch-token", "/sensitive?token=notch-token", *looks,
                  "/token?token=creeper-token", "/secret?token=sato-token", "/logout?token=notch-token",
                  "/login?user=steve&token=notch-token", "/token?token=notch-token"])
    for query in QUERIES:
        walks.append([f"/secret{query}", "/next", "/next", f"/sensitive{query}", "/next",
                      "/login?user=sato&fresh=0", f"/sensitive{query}", "/next", "/next"])
    walks.append([("OPTIONS", "/secret"), ("OPTIONS", "/sensitive"), ("HEAD", "/username")])
    for walk in walks:
        yield ("browser", 0)
        yield ("forget",)
        yield from walk


def randomly(steps, rng, records, strong):
    events = [("close",), ("lose", "session"), ("lose", "remember"), ("garble", "session"),
              ("garble", "remember")]
    if not records:
        events += [("save",), ("restore",)]
    for _ in range(steps):
        draw = rng.random()
        if draw < 0.05:
            yield ("browser", rng.randrange(2))
        elif draw < 0.20:
            yield rng.choice(events)
        elif draw < 0.26:
            yield ("change_agent", rng.choice(AGENTS))
        elif draw < 0.45:
            query = {"user": rng.choice([*USERS, "notch", "steve", "nobody"])}
            if rng.random() < 0.5:
                query["remember"] = rng.choice("110")
            if rng.random() < 0.3:
                query["duration"] = rng.choice(["3600", "86400", "x", ""])
            if rng.random() < 0.3:
                query["force"] = rng.choice("10")
            if rng.random() < 0.3:
                query["fresh"] = rng.choice("10")
            yield "/login?" + urllib.parse.urlencode(query)
        else:
            path = rng.choice(["/hello", "/logout", "/confirm", "/confirm", "/username", "/is-auth",
                               "/is-fresh", "/is-remembered", "/secret", "/secret", "/sensitive",
                               "/sensitive", "/next", "/token"])
            target = path
            if path == "/token" or rng.random() < 0.08:
                target += f"?token={rng.choice(USERS + ['nobody'])}-token"
            elif rng.random() < 0.2:
                target += rng.choice(QUERIES)
            yield (rng.choice(["HEAD", "OPTIONS"]), target) if rng.random() < 0.04 and path in (
                "/secret", "/sensitive") else target
            if strong and path == "/logout":
                yield "/username"


def compare(pair, steps):
    """Runs the steps on both servers. Returns the number of requests, or exits at the first
    difference."""
    browsers = [[Browser(server) for _ in range(2)] for server in pair]
    current, made, history = 0, 0, []
    for step in steps:
        history.append(step)
        both = [browsers[0][current], browsers[1][current]]
        match step:
            case ("browser", number):
                current = number
            case ("forget",):
                for side, server in enumerate(pair):
                    browsers[side][current] = Browser(server)
            case str(target):
                made += request(both, "GET", target, history)
            case ("HEAD" | "OPTIONS" as method, target):
                made += request(both, method, target, history)
            case (event, *arguments):
                for browser in both:
                    getattr(browser, event)(*arguments)
    return made


def request(both, method, target, history):
    reference, ours = (browser.request(method, target) for browser in both)
    if method == "OPTIONS":
        # Flask's response lists the allowed methods, so only the status is compared.
        reference, ours = reference[0], ours[0]
    if reference != ours:
        tail = "\n".join(f"  {step}" for step in history[-25:])
        raise SystemExit(
            f"a difference after {len(history)} steps, the last of them:\n{tail}\n"
            f"Flask-Login: {reference}\ntower-keep:  {ours}"
        )
    return 1


def configurations(mode, rng):
    views = ["--login-view", "/login", "--refresh-view", "/confirm"]
    elsewhere = ["--login-view", "https://id.example/in?theme=dark", "--refresh-view", "/again?x=1"]
    yield []
    yield ["--permanent-session"]
    yield ["--remember-refresh-each-request"]
    yield ["--permanent-session", "--remember-refresh-each-request"]
    yield ["--remember-cookie-name", "me", "--remember-duration", "3600"]
    if mode != "strong":
        yield views
        yield elsewhere
        yield [*views, "--next-in-session"]
        yield [*views, "--next-in-session", "--permanent-session"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True, help="the parity server's binary")
    parser.add_argument("--steps", type=int, default=2000, help="random steps per protection mode")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--server-sessions", action="store_true", help="tower-keep uses server-side sessions")
    arguments = parser.parse_args()
    more = ["--server-sessions"] if arguments.server_sessions else []
    seed = arguments.seed if arguments.seed is not None else random.randrange(1 << 32)
    reference = [sys.executable, str(HERE / "reference_app.py")]
    for mode in ["none", "basic", "strong"]:
        rng = random.Random(f"{seed} {mode}")
        configured = list(configurations(mode, rng))
        share = -(-arguments.steps // len(configured))
        total = 0
        for options in configured:
            options = ["--session-protection", mode, *options]
            ours = [arguments.server, *more]
            pair = [Server(command, options) for command in (reference, ours)]
            try:
                compare(pair, scripted())
                total += compare(pair, randomly(share, rng, arguments.server_sessions, mode == "strong"))
            except SystemExit as difference:
                raise SystemExit(f"{difference}\noptions: {' '.join([*more, *options])}\nseed: {seed}") from None
            finally:
                for server in pair:
                    server.stop()
        kept = "with" if arguments.server_sessions else "without"
        print(f"{mode}, {kept} server-side sessions: {share * len(configured)} random steps, {total} requests, no difference "
              f"(seed {seed})", flush=True)


if __name__ == "__main__":
    main()
