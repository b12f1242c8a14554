"""Uses the page of a running server as a person does, in headless Chromium.

    python -m venv /somewhere/venv && /somewhere/venv/bin/pip install -r tools/clients/requirements.txt
    /somewhere/venv/bin/python tools/clients/page_chromium.py http://127.0.0.1:8480 eu-… [/usr/bin/chromium]

The server has to serve a model with a chat template. Signs in with a wrong key and with the right one; talks, streams,
stops; begins anew; signs out; looks at the page in every official language; and plays a model that writes markup, a page
of another site, and a script that the policy does not name. Nothing may be asked of any other host, and nothing may
appear in the browser's console. Prints one line per check; exit code 1 if one fails.
"""

import http.server
import sys
import threading

from playwright.sync_api import Browser, Page, sync_playwright

LANGUAGES = "bg cs da de el en es et fi fr ga hr hu it lt lv mt nl pl pt ro sk sl sv".split()

failures: list[str] = []


def main(base: str, key: str, chromium: str = "/usr/bin/chromium") -> int:
    base = base.rstrip("/")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        speaks(browser, base)
        talks(browser, base, key)
        holds(browser, base, key)
        browser.close()
    return 1 if failures else 0


def check(what: str, holds: bool, found: object = "") -> None:
    print(f"{'ok  ' if holds else 'FAIL'} {what}{'' if holds else f': {found!r}'}")
    if not holds:
        failures.append(what)


def opened(browser: Browser, base: str, locale: str = "en-IE", **options: object) -> tuple[Page, list[str], list[str]]:
    """A fresh browser's page, what its console says, and which other hosts it asked."""
    page = browser.new_context(locale=locale, ignore_https_errors=True, **options).new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(base) else asked.append(request.url))
    page.goto(base)
    return page, said, asked


def signed_in(browser: Browser, base: str, key: str) -> tuple[Page, list[str], list[str]]:
    page, said, asked = opened(browser, base)
    page.fill("#key", key)
    page.click("#sign-in button")
    page.wait_for_selector("#model option", state="attached")
    said.clear()
    return page, said, asked


def speaks(browser: Browser, base: str) -> None:
    notices = set()
    for language in LANGUAGES:
        page, _, _ = opened(browser, base, locale=language)
        notices.add(page.inner_text("#notice"))
        shown = page.get_attribute("html", "lang")
        check(f"the page speaks {language}", shown == language and page.is_visible("#notice"), shown)
        page.context.close()
    check("every language has words of its own", len(notices) == len(LANGUAGES), len(notices))


def talks(browser: Browser, base: str, key: str) -> None:
    page, _, asked = opened(browser, base)
    check("says that one talks to a machine before anything else", "machine" in page.inner_text("#notice"))
    check("shows no chat to a stranger", not page.is_visible("#ask") and not page.is_visible("#model"))
    page.fill("#key", "eu-wrong")
    page.click("#sign-in button")
    page.wait_for_selector("#problem:visible")
    check("refuses a wrong key", page.is_visible("#sign-in"), page.inner_text("#problem"))
    page.context.close()

    page, said, asked = signed_in(browser, base, key)
    cookies = page.context.cookies()
    check("one cookie, closed to scripts and other sites", len(cookies) == 1 and cookies[0]["httpOnly"]
          and cookies[0]["sameSite"] == "Strict" and page.evaluate("document.cookie") == "", cookies)
    check("the key stays nowhere", key not in page.content() and not page.evaluate("localStorage.length"))
    chat = [name for name in page.locator("#model option").all_inner_texts() if name.endswith("-chat")]
    if chat:
        page.select_option("#model", chat[0])
    page.fill("#text", "Dia duit! Cad is ainm duit?")
    page.press("#text", "Enter")
    page.wait_for_selector("#stop", state="hidden", timeout=60_000)
    answers = page.locator(".assistant p").all_inner_texts()
    check("answers", len(answers) == 1 and answers[0] != "" and not page.is_visible(".problem"), page.inner_text("#log"))

    page.fill("#text", "Write as long as you can.")
    page.press("#text", "Enter")
    page.click("#stop", timeout=60_000)
    page.wait_for_selector("#stop", state="hidden")
    check("stops when asked", not page.is_disabled("#send"))
    page.reload()
    page.wait_for_selector("#model option", state="attached")
    check("stays signed in over a reload", page.is_visible("#ask"))
    page.click("#leave")
    page.wait_for_selector("#sign-in:visible")
    check("signs out", not page.is_visible("#ask"))
    check("asks no other host", asked == [], asked)
    # Who signed out is told 401 by the page itself, which the console repeats.
    unexpected = [line for line in said if "401" not in line]
    check("nothing in the console", unexpected == [], unexpected)
    page.context.close()


def holds(browser: Browser, base: str, key: str) -> None:
    page, _, _ = signed_in(browser, base, key)
    markup = "<img src=x onerror=\\\"window.broken=1\\\"><script>window.broken=1</script>"
    event = f'data: {{"choices": [{{"index": 0, "delta": {{"content": "{markup}"}}, "finish_reason": null}}]}}\n\n'
    page.route("**/v1/chat/completions", lambda route: route.fulfill(
        status=200, content_type="text/event-stream", body=event + "data: [DONE]\n\n"))
    page.fill("#text", "<b onclick=window.broken=1>a</b>")
    page.press("#text", "Enter")
    page.wait_for_selector(".assistant p:not(:empty)")
    shown = page.locator(".assistant p").inner_text()
    check("what a model writes stays text", "<script>" in shown and page.locator("#log img, #log script, #log b b").count() == 0
          and page.evaluate("window.broken") is None, shown)
    page.evaluate("""() => {
        const script = document.createElement('script');
        try { script.text = 'window.broken = 1'; document.body.append(script); } catch {}
    }""")
    check("no other script runs", page.evaluate("window.broken") is None)
    blocked = page.evaluate("fetch('http://localhost:1/').then(() => 'sent', () => 'blocked')")
    check("no other host can be asked", blocked == "blocked", blocked)

    class Site(http.server.BaseHTTPRequestHandler):
        """Another site that frames the page and asks the server in its reader's name."""

        def do_GET(self) -> None:
            body = (f"<iframe src='{base}/'></iframe><script>window.done = fetch('{base}/v1/models', "
                    "{credentials: 'include'}).then(() => 'read', () => 'refused')</script>").encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    other = page.context.new_page()
    other.goto(f"http://localhost:{site.server_port}/")
    check("another site reads nothing", other.evaluate("window.done") == "refused")
    frames = [frame for frame in other.frames[1:] if "You are talking" in frame.content()]
    check("another site cannot frame the page", frames == [], frames)
    site.shutdown()
    page.context.close()


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
