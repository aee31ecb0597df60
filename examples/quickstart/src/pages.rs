//! The HTML pages, without any code for logging in. maud escapes all values on a page.

use std::time::SystemTime;

use maud::{DOCTYPE, Markup, html};
use tower_keep::Account;
use tower_keep::flash::Flash;
use tower_keep::session::SessionInfo;
use tower_keep::sign_in::SignInPage;

const STYLE: &str = "
:root { --ink: #1d2733; --soft: #5d6b7a; --line: #dfe4ea; --paper: #fff; --back: #f4f6f8;
  --accent: #24577f; --good: #e6f4ea; --warn: #fff4d6; --bad: #fdeaea; color-scheme: light; }
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 16px/1.55 system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif }
header { background: var(--paper); border-bottom: 1px solid var(--line) }
nav { max-width: 44rem; margin: auto; padding: .8rem 1.2rem; display: flex; gap: 1.2rem; align-items: center }
nav .brand { font-weight: 650; margin-right: auto; color: var(--ink); text-decoration: none }
nav form { margin: 0 }
main { max-width: 44rem; margin: 2.2rem auto; padding: 0 1.2rem }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: 1.6rem 1.8rem; box-shadow: 0 1px 3px rgb(20 40 60 / 6%) }
.narrow { max-width: 24rem; margin: auto }
h1 { font-size: 1.5rem; margin: 0 0 .6rem; letter-spacing: -.01em }
p { margin: .5rem 0 1rem; color: var(--soft) }
a { color: var(--accent) }
label { display: block; font-weight: 550; margin: 1rem 0 .3rem }
label.check { font-weight: 400; display: flex; gap: .5rem; align-items: center }
input[type=text], input[type=password] { width: 100%; font: inherit; padding: .55rem .7rem;
  border: 1px solid #b9c3ce; border-radius: 6px; background: #fff; color: inherit }
input:focus-visible, button:focus-visible, a:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px }
button { font: inherit; font-weight: 600; padding: .55rem 1.1rem; border-radius: 6px; cursor: pointer;
  border: 1px solid var(--accent); background: var(--accent); color: #fff; margin-top: 1.3rem }
button.plain { background: none; border: 0; color: var(--accent); padding: 0; margin: 0; font-weight: 400;
  text-decoration: underline }
.flash { border-radius: 8px; padding: .7rem 1rem; margin: 0 0 1.2rem; background: var(--warn); color: inherit }
.flash.success { background: var(--good) }
.flash.error { background: var(--bad) }
.devices { list-style: none; margin: 1.2rem 0 0; padding: 0 }
.devices li { display: flex; gap: 1rem; align-items: baseline; justify-content: space-between;
  border-top: 1px solid var(--line); padding: .9rem 0 }
.devices p { margin: .1rem 0 0; font-size: .92rem }
.devices form { margin: 0; flex: none }
.here { background: var(--good); border-radius: 99px; padding: .1rem .6rem; margin-left: .6rem; font-size: .85rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .5rem 1.6rem; margin: 1.2rem 0 }
dt { color: var(--soft) } dd { margin: 0 }
";

fn page(title: &str, user: Option<&Account>, content: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · tower-keep" }
                style { (maud::PreEscaped(STYLE)) }
            }
            body {
                header {
                    nav {
                        a.brand href="/" { "tower-keep" }
                        @if user.is_some() {
                            a href="/account" { "Account" }
                            a href="/devices" { "Devices" }
                            form method="post" action="/logout" { button.plain { "Log out" } }
                        } @else {
                            a href="/sign-up" { "Sign up" }
                            a href="/login" { "Log in" }
                        }
                    }
                }
                main { (content) }
            }
        }
    };
    page.into_string()
}

fn messages(flash: Option<&Flash>, error: Option<&str>) -> Markup {
    html! {
        @if let Some(flash) = flash {
            p class={ "flash " (flash.category()) } role="status" { (flash.text()) }
        }
        @if let Some(error) = error { p.flash.error role="alert" { (error) } }
    }
}

pub(crate) fn home(user: Option<&Account>) -> String {
    let content = html! {
        section.card {
            @if let Some(user) = user {
                h1 { "Welcome back, " (user.login_name()) }
                p { "You are logged in." }
                a href="/account" { "Go to your account" }
            } @else {
                h1 { "Hello, stranger" }
                p { "Everybody sees this page. Your account is behind the login." }
                a href="/account" { "Go to your account" }
            }
        }
    };
    page("Home", user, &content)
}

/// The page of the form to log in, or to confirm a login.
pub(crate) fn sign_in(shown: &SignInPage<'_>) -> String {
    let content = html! {
        section.card.narrow {
            h1 { (shown.title()) }
            (messages(shown.flash, shown.error))
            form method="post" {
                @if let Some(next) = shown.next { input type="hidden" name="next" value=(next); }
                @if !shown.is_confirmation {
                    label for="login" { "Login" }
                    input #login type="text" name="login" value=(shown.login_name)
                        autocomplete="username" autocapitalize="none" required autofocus;
                }
                label for="password" { "Password" }
                input #password type="password" name="password" autocomplete="current-password"
                    required autofocus[shown.is_confirmation];
                @if !shown.is_confirmation {
                    label.check { input type="checkbox" name="remember" value="on"; "Remember me on this device" }
                }
                button { (if shown.is_confirmation { "Confirm" } else { "Log in" }) }
            }
        }
    };
    page(shown.title(), None, &content)
}

pub(crate) fn sign_up(login: &str, error: Option<&str>) -> String {
    let content = html! {
        section.card.narrow {
            h1 { "Sign up" }
            (messages(None, error))
            form method="post" action="/sign-up" {
                label for="login" { "Login" }
                input #login type="text" name="login" value=(login) autocomplete="username"
                    autocapitalize="none" maxlength="100" required autofocus;
                label for="password" { "Password" }
                input #password type="password" name="password" autocomplete="new-password"
                    minlength="8" required;
                button { "Create the account" }
            }
        }
    };
    page("Sign up", None, &content)
}

pub(crate) fn account(
    user: &Account,
    flash: Option<&Flash>,
    is_fresh: bool,
    is_remembered: bool,
) -> String {
    let yes_or_no = |is_true| if is_true { "yes" } else { "no" };
    let content = html! {
        (messages(flash, None))
        section.card {
            h1 { "Your account" }
            dl {
                dt { "Login" } dd { (user.login_name()) }
                dt { "Fresh login" } dd { (yes_or_no(is_fresh)) }
                dt { "Remembered on this device" } dd { (yes_or_no(is_remembered)) }
            }
            p { a href="/devices" { "Your devices" } }
            a href="/password" { "Change your password" }
        }
    };
    page("Account", Some(user), &content)
}

pub(crate) fn devices(user: &Account, flash: Option<&Flash>, sessions: &[SessionInfo]) -> String {
    let has_others = sessions.iter().any(|session| !session.is_current());
    let content = html! {
        (messages(flash, None))
        section.card {
            h1 { "Your devices" }
            p { "You are logged in on these devices. If you don't know one of them, end its login and change your password." }
            ul.devices {
                @for session in sessions { li { (device(session)) } }
            }
            @if has_others {
                form method="post" action="/devices/end-others" { button { "Log out all other devices" } }
            }
        }
    };
    page("Your devices", Some(user), &content)
}

fn device(session: &SessionInfo) -> Markup {
    let address = session.address().map(|address| address.to_string());
    html! {
        div {
            strong { (session.device()) }
            @if session.is_current() { span.here { "this device" } }
            p {
                @if session.is_current() { "Active now" } @else { "Last active " (ago(session.last_seen())) }
                ", logged in " (ago(session.created()))
                @if let Some(address) = address { " from " (address) }
                @if session.is_remembered() { ", remembered" }
            }
        }
        form method="post" action="/devices/end" {
            input type="hidden" name="session" value=(session.public_id());
            button.plain { @if session.is_current() { "Log out" } @else { "End" } }
        }
    }
}

/// Returns the time since `time` as a phrase, such as "2 hours ago".
fn ago(time: SystemTime) -> String {
    let seconds = time.elapsed().unwrap_or_default().as_secs();
    let (count, unit) = match seconds {
        0..60 => return "just now".into(),
        60..3_600 => (seconds / 60, "minute"),
        3_600..86_400 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

pub(crate) fn password(user: &Account, error: Option<&str>) -> String {
    let content = html! {
        section.card.narrow {
            h1 { "Change your password" }
            p { "Changing your password ends all your other logins." }
            (messages(None, error))
            form method="post" action="/password" {
                label for="password" { "New password" }
                input #password type="password" name="password" autocomplete="new-password"
                    minlength="8" required autofocus;
                button { "Change it" }
            }
        }
    };
    page("Change your password", Some(user), &content)
}
