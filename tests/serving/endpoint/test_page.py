"""The page in a real browser, and what its files are served with."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from page_harness import (
    DIGITS,
    PEOPLE,
    SPOT,
    VISITS,
    Standin,
    categorical,
    error_of,
    model,
    numeric,
    served,
)

from mlops.serving.endpoint.page_files import POLICY, page_routes

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "\"' onfocus=alert(3) autofocus='",
    "javascript:alert(4)",
    "__proto__",
    "constructor",
    "",
    " ",
    "{{7*7}}${alert(5)}",
    "\u202egnp.exe",
    "12",
    "7",
    "a" * 300,
]


# ---- the files ----


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(Standin().app()) as address:
        yield address


def get(address: str, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
    """Asks without tidying the path, as an attacker would."""
    connection = HTTPConnection(address.removeprefix("http://"), timeout=10)
    with closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page/app.js", "text/javascript; charset=utf-8"),
        ("/page/style.css", "text/css; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
    ],
)
def test_a_file_comes_with_strict_headers(address: str, path: str, kind: str) -> None:
    answer, body = get(address, path)
    assert (answer.status, bool(body)) == (200, True)
    assert answer.headers["Content-Type"] == kind
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert "default-src 'none'" in POLICY and "unsafe" not in POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-cache"


def test_a_file_the_browser_has_is_not_sent_again(address: str) -> None:
    path = "/page/app.js"
    tag = get(address, path)[0].headers["ETag"]
    again, body = get(address, path, **{"If-None-Match": f"W/{tag}"})
    assert (again.status, body) == (304, b"")
    assert get(address, path, **{"If-None-Match": '"other"'})[0].status == 200
    answer, body = get(address, "/", "HEAD")
    assert (answer.status, body) == (200, b"")


@pytest.mark.parametrize("path", ["/page/../page_files.py", "/page/%2e%2e/app.py", "/page/"])
def test_nothing_else_is_a_file_of_the_page(address: str, path: str) -> None:
    assert get(address, path)[0].status == 404


def test_every_file_that_a_file_names_is_served() -> None:
    folder = Path(__file__).parents[3] / "mlops" / "serving" / "page"
    served_paths = {route.path for route in page_routes()}
    html = (folder / "index.html").read_text(encoding="utf-8")
    named = {f"/{name}" for name in re.findall(r'(?:src|href)="([^"#]+)"', html)}
    for script in folder.glob("*.js"):
        text = script.read_text(encoding="utf-8")
        named |= {f"/page/{name}" for name in re.findall(r'from "\./([^"]+)"', text)}
    assert named | {"/"} == served_paths
    assert not re.search(r"\sstyle=|<style|\son\w+=|<script>", html)


# ---- the page ----


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("Chromium is not installed here")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


class Visit:
    """A page that was opened, and what went wrong in it."""

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self.address = address
        self.wrong: list[str] = []
        self.foreign: list[str] = []
        page.add_init_script(
            "addEventListener('securitypolicyviolation',"
            " (event) => console.error('violation of ' + event.violatedDirective))"
        )
        page.on("dialog", self._dialog)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("console", self._console)
        page.on("request", self._request)
        page.goto(address)

    def _dialog(self, dialog: Any) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _console(self, message: Any) -> None:
        # Chromium says this of every status that is an error; the page shows what it means.
        status = message.text.startswith("Failed to load resource")
        if message.type in ("error", "warning") and not status:
            self.wrong.append(f"console: {message.text}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith(f"{self.address}/"):
            self.foreign.append(request.url)


Open = Callable[..., Any]


@pytest.fixture
def visit(browser: Any) -> Iterator[Open]:
    """Opens the page of a stand-in or an address; nothing may have gone wrong in it at the end."""
    visits: list[Visit] = []
    with ExitStack() as stack:

        def open_page(where: Standin | str, **options: Any) -> Any:
            address = where if isinstance(where, str) else stack.enter_context(served(where.app()))
            context = browser.new_context(**{"reduced_motion": "reduce", **options})
            stack.callback(context.close)
            context.set_default_timeout(10_000)
            visits.append(Visit(context.new_page(), address))
            return visits[-1].page

        yield open_page
    assert [visit.wrong for visit in visits] == [[] for _ in visits]
    assert [visit.foreign for visit in visits] == [[] for _ in visits]


def predict(page: Any) -> str:
    """Asks for a prediction; returns what is said of it."""
    spoken = page.locator("#spoken")
    page.evaluate("document.getElementById('spoken').textContent = ''")
    page.get_by_role("button", name="Predict").click()
    spoken.filter(has_text="Prediction").wait_for(state="attached")
    return str(spoken.text_content())


def names_of(page: Any, selector: str) -> list[str]:
    return list(page.locator(selector).all_text_contents())


@pytest.mark.browser
def test_a_typical_row_is_filled_in_and_predicted(visit: Open) -> None:
    standin = Standin(PEOPLE)
    page = visit(standin)
    page.get_by_role("button", name="Fill with a typical row").click()
    assert page.get_by_label("age").input_value() == "37"
    assert page.get_by_label("score").input_value() == "0.0721356"
    said = predict(page)
    (row,) = standin.rows
    assert row == {**PEOPLE["typical_row"], "score": 0.0721356}
    label = page.locator("#answer .label").text_content()
    assert label in PEOPLE["classes"]
    assert said.startswith(f"Prediction: {label}, probability ")
    bars = names_of(page, "#answer .bars bdi")
    assert sorted(bars) == sorted(PEOPLE["classes"])
    assert bars[0] == label
    widths = page.eval_on_selector_all(
        "#answer .bar",
        "bars => bars.map(bar => parseFloat(getComputedStyle(bar, '::before').width))",
    )
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 0


@pytest.mark.browser
def test_what_is_not_known_is_sent_as_a_gap(visit: Open) -> None:
    standin = Standin(PEOPLE)
    page = visit(standin)
    page.get_by_label("education").select_option(label="Masters")
    page.get_by_label("workclass").select_option(label="(something else)")
    page.get_by_label("hours_per_week").fill("-1.5e2")
    predict(page)
    (row,) = standin.rows
    assert row.keys() == PEOPLE["columns"].keys()
    assert row.pop("education") == "Masters"
    assert row.pop("hours_per_week") == -150
    assert row.pop("workclass") not in (None, *PEOPLE["columns"]["workclass"]["levels"])
    assert set(row.values()) == {None}
    assert "5 values were not known" in page.locator("#answer").text_content()


@pytest.mark.browser
def test_a_value_out_of_range_is_doubted_and_sent(visit: Open) -> None:
    standin = Standin(PEOPLE)
    page = visit(standin)
    age = page.get_by_label("age")
    field = page.locator(".field", has=age)
    age.fill("120")
    age.blur()
    assert "outside 17 to 90" in field.text_content()
    predict(page)
    assert standin.rows[0]["age"] == 120
    age.fill("90")
    age.blur()
    assert "outside" not in field.text_content()


@pytest.mark.browser
def test_dates_are_filled_in_doubted_and_sent(visit: Open) -> None:
    standin = Standin(VISITS)
    page = visit(standin)
    day, start = page.get_by_label("day"), page.get_by_label("start")
    assert (day.get_attribute("type"), start.get_attribute("type")) == ("date", "datetime-local")
    predict(page)
    page.get_by_role("button", name="Fill with a typical row").click()
    predict(page)
    assert "outside" not in page.locator("#fields").text_content()
    day.fill("2024-02-29")
    start.fill("2023-01-01T00:00")
    start.blur()
    assert "outside 2023-01-02 to 2024-01-31" in page.locator(".field", has=day).text_content()
    assert "outside 2023-01-02 00:00:00 to " in page.locator(".field", has=start).text_content()
    predict(page)
    assert standin.rows == [
        {"day": None, "start": None},
        {"day": "2023-06-30", "start": "2023-06-30T10:11:12"},
        {"day": "2024-02-29", "start": "2023-01-01T00:00"},
    ]
    # Half a date is none, and nothing is sent.
    day.press("Delete")
    page.get_by_role("button", name="Predict").click()
    assert "must be a date, or empty" in page.locator(".field", has=day).text_content()
    assert len(standin.rows) == 3


@pytest.mark.browser
def test_a_changed_value_makes_the_answer_an_old_one(visit: Open) -> None:
    page = visit(Standin(PEOPLE))
    assert page.locator("#stale").is_hidden()
    page.get_by_label("age").fill("40")
    assert page.locator("#stale").is_hidden()
    predict(page)
    page.get_by_label("age").fill("41")
    assert page.locator("#stale").is_visible()
    predict(page)
    assert page.locator("#stale").is_hidden()
    page.get_by_role("button", name="Clear").click()
    assert page.get_by_label("age").input_value() == ""
    assert page.locator("#answer .label").count() == 0


@pytest.mark.browser
def test_a_value_changed_while_the_server_thinks_is_not_in_the_answer(visit: Open) -> None:
    page = visit(Standin(PEOPLE))
    held: list[Any] = []
    page.route("**/predict", lambda route: held.append(route))
    page.get_by_role("button", name="Predict").click()
    page.get_by_role("button", name="Predicting").click(force=True)  # asks no second time
    page.get_by_label("age").fill("30")
    assert len(held) == 1
    held[0].continue_()
    page.get_by_role("button", name="Predict", exact=True).wait_for()
    assert page.locator("#stale").is_visible()


@pytest.mark.browser
def test_an_error_stands_at_its_field(visit: Open) -> None:
    standin = Standin(DIGITS)
    details = [
        {"row": 0, "field": "pixel_7_7", "message": "must be below 17, got 99"},
        {"row": 0, "field": "pixel_0_3", "message": "must be a number, got text"},
        {"row": None, "field": None, "message": "the row is odd"},
    ]
    standin.refusal = (422, {}, error_of("bad_rows", "2 cells cannot be used", details))
    page = visit(standin)
    page.get_by_label("Find a column").fill("pixel_4")
    page.get_by_role("button", name="Predict").click()
    wrong = page.locator("[aria-invalid=true]")
    wrong.first.wait_for()
    assert wrong.count() == 2
    first = page.get_by_label("pixel_0_3")
    assert first.evaluate("input => input === document.activeElement")
    described = first.get_attribute("aria-describedby").split()
    texts = [page.locator(f"#{name}").text_content() for name in described]
    assert "must be a number, got text" in texts
    problems = page.get_by_role("alert").filter(has_text="2 cells").text_content()
    assert "the row is odd" in problems
    assert "below 17" not in problems
    first.fill("3")
    assert wrong.count() == 1
    standin.refusal = None
    predict(page)
    assert wrong.count() == 0
    assert page.locator("#problems").is_hidden()


@pytest.mark.browser
def test_text_that_is_no_number_is_not_sent(visit: Open) -> None:
    standin = Standin(PEOPLE)
    page = visit(standin)
    page.get_by_label("age").press_sequentially("1e")
    page.get_by_role("button", name="Predict").click()
    page.locator("[aria-invalid=true]").wait_for()
    assert "must be a number" in page.locator(".field", has=page.get_by_label("age")).text_content()
    assert standin.rows == []


@pytest.mark.browser
def test_names_are_text_whatever_they_are(visit: Open) -> None:
    columns = {name: numeric(0, 1, 2) for name in HOSTILE}
    columns["level"] = categorical(*HOSTILE)
    standin = Standin(
        model(
            columns,
            HOSTILE,
            HOSTILE[0],
            name=HOSTILE[0],
            lineage={"study": HOSTILE[1], "data": {"name": HOSTILE[0], "digest": HOSTILE[2]}},
            refused={"version": 4, "reason": HOSTILE[0]},
        )
    )
    page = visit(standin)
    page.get_by_role("button", name="Fill with a typical row").click()
    page.get_by_label("level").select_option(label=HOSTILE[4])
    predict(page)
    assert standin.rows[0] == {**dict.fromkeys(HOSTILE, 1), "level": "__proto__"}
    for name in HOSTILE:
        details = [{"row": 0, "field": name, "message": f"wrong: {name}"}]
        standin.refusal = (422, {}, error_of("bad_rows", HOSTILE[0], details))
        page.get_by_role("button", name="Predict").click()
        page.get_by_text(f"wrong: {name}", exact=True).wait_for()
    assert page.locator("img, iframe, script:not([src])").count() == 0
    assert page.evaluate("({}).polluted === undefined && Object.keys(Object.prototype).length") == 0


@pytest.mark.browser
def test_the_browser_itself_forbids_markup(browser: Any) -> None:
    with served(Standin(PEOPLE).app()) as address:
        page = browser.new_page()
        page.goto(address)
        with pytest.raises(Exception, match="TrustedHTML"):
            page.evaluate("document.body.innerHTML = '<img>'")
        page.close()


@pytest.mark.browser
def test_without_a_model_the_page_says_how_to_make_one(visit: Open) -> None:
    standin = Standin(None)
    page = visit(standin)
    page.get_by_role("heading", name="No model yet").wait_for()
    assert "make tune" in page.locator("#no-model code").first.text_content()
    assert "a model must be registered, got none" in page.locator("#no-model").text_content()
    standin.model = PEOPLE
    page.get_by_role("heading", name="Predict income").wait_for()


@pytest.mark.browser
def test_a_token_is_asked_for_and_kept_in_the_tab(visit: Open) -> None:
    standin = Standin(SPOT, token="right-token")
    page = visit(standin)
    token = page.get_by_label("Token", exact=True)
    token.wait_for()
    assert token.evaluate("input => input === document.activeElement")
    token.fill("wrong-token")
    token.press("Enter")
    page.get_by_text("does not accept this token").wait_for()
    token.fill("ünfit token")
    token.press("Enter")
    page.get_by_text("without spaces").wait_for()
    token.fill("right-token")
    token.press("Enter")
    page.get_by_role("heading", name="Predict target").wait_for()
    predict(page)
    assert standin.tokens == [None, "Bearer wrong-token", *["Bearer right-token"] * 2]
    page.reload()
    page.get_by_role("heading", name="Predict target").wait_for()
    assert page.evaluate(
        "[localStorage.length, document.cookie, location.href.includes('token')]"
    ) == [
        0,
        "",
        False,
    ]
    standin.token = "another"
    page.get_by_role("button", name="Predict").click()
    token.wait_for()


@pytest.mark.browser
def test_a_new_version_renews_the_form_and_keeps_the_values(visit: Open) -> None:
    standin = Standin(PEOPLE)
    page = visit(standin)
    page.get_by_label("age").fill("51")
    page.get_by_label("education").select_option(label="Doctorate")
    columns = {key: value for key, value in PEOPLE["columns"].items() if key != "citizen"}
    columns["county"] = categorical("north", "south")
    standin.model = model(columns, ["low", "middle", "high"], "income", version=4)
    predict(page)
    # The old form lacked a column, so the page asked again with the new one.
    assert [("county" in row, row["age"]) for row in standin.rows] == [(False, 51), (True, 51)]
    assert page.get_by_label("education").locator("option:checked").text_content() == "Doctorate"
    assert page.get_by_label("citizen").count() == 0
    assert page.get_by_label("county").count() == 1
    assert (
        "from version 3 to 4"
        in page.get_by_role("status").filter(has_text="changed").text_content()
    )
    assert "version 4" in page.locator("#answer").text_content()
    standin.model = {**standin.model, "version": 5}
    page.get_by_label("age").press("Enter")
    page.get_by_text("Answered by mlp, version 5").wait_for()
    assert page.get_by_label("age").evaluate("input => input === document.activeElement")
    assert len(standin.rows) == 3
    assert "version 5" in page.locator(".badge").text_content()


@pytest.mark.browser
def test_a_busy_or_silent_server_is_said_so(visit: Open) -> None:
    standin = Standin(SPOT)
    standin.refusal = (503, {"Retry-After": "2"}, error_of("overloaded", "too many requests wait"))
    page = visit(standin)
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("too many requests wait (Try again in 2 s.)").wait_for()
    page.route("**/predict", lambda route: route.abort())
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("did not answer").wait_for()
    page.unroute("**/predict")
    page.route("**/predict", lambda route: route.fulfill(status=502, body="<h1>Bad gateway"))
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("HTTP status 502").wait_for()
    page.unroute("**/predict")
    page.route("**/model", lambda route: route.abort())
    page.reload()
    page.get_by_role("heading", name="could not be read").wait_for()
    page.unroute("**/model")
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("heading", name="Predict target").wait_for()


@pytest.mark.browser
def test_many_columns_can_be_found(visit: Open) -> None:
    standin = Standin(DIGITS)
    page = visit(standin)
    fields = page.locator("#fields .field:visible")
    assert fields.count() == 64
    find = page.get_by_label("Find a column")
    find.fill("L_2_")
    assert fields.count() == 8
    assert page.get_by_text("8 of 64 columns").is_visible()
    page.get_by_label("pixel_2_5").fill("9")
    find.press("Enter")
    assert standin.rows == []
    find.fill("nothing")
    assert page.get_by_text("No column has this in its name.").is_visible()
    predict(page)
    assert len(standin.rows[0]) == 64
    assert standin.rows[0]["pixel_2_5"] == 9


@pytest.mark.browser
@pytest.mark.parametrize("classes", [2, 10, 11, 40, 200])
def test_many_classes_are_folded_away(visit: Open, classes: int) -> None:
    names = [f"class {place}" for place in range(classes)]
    page = visit(Standin(model(SPOT["columns"], names, "target")))
    predict(page)
    assert page.locator("#answer .bars li").count() == classes
    assert page.locator("#answer .bars li:visible").count() == (classes if classes <= 10 else 8)
    rows = page.locator("#about .matrix tbody tr")
    assert rows.count() == (classes if classes <= 40 else 0)
    if classes > 40:
        assert page.locator("#about .list tbody tr").count() == 20


@pytest.mark.browser
def test_it_works_by_keyboard_and_every_control_has_a_name(visit: Open) -> None:
    standin = Standin(PEOPLE)
    page = visit(standin)
    page.get_by_role("heading", name="Predict income").wait_for()
    for _ in ("typical row", "clear", "age"):
        page.keyboard.press("Tab")
    page.keyboard.type("28")
    page.keyboard.press("Enter")
    page.locator("#answer .label").wait_for()
    assert standin.rows[0]["age"] == 28
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input, select, button')].filter("
        "  (control) => !(control.labels?.length || control.textContent.trim())).length"
    )
    assert unnamed == 0
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(({ id }) => id)")
    assert len(ids) == len(set(ids))


@pytest.mark.browser
@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 768, 1280])
@pytest.mark.parametrize("name", ["people", "digits"])
def test_it_fits_and_can_be_read(
    visit: Open, tmp_path: Path, name: str, width: int, colours: str
) -> None:
    """Keeps a screenshot, in the folder MLOPS_SCREENSHOTS if it is given."""
    standin = Standin({"people": PEOPLE, "digits": DIGITS}[name])
    page = visit(standin, viewport={"width": width, "height": 900}, color_scheme=colours)
    page.get_by_role("button", name="Fill with a typical row").click()
    predict(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # All of it in one window: in a picture of a long page the bar of buttons hangs in the middle.
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": width, "height": height})
    folder = Path(os.environ.get("MLOPS_SCREENSHOTS", tmp_path))
    page.screenshot(path=folder / f"page-{name}-{width}-{colours}.png")


@pytest.mark.browser
def test_the_page_of_a_registered_model(visit: Open, store: Any) -> None:
    """The real endpoint: a hostile column's name goes from the table to the page and back."""
    import endpoint_harness as real

    table = real.mixed_table().rename(columns={"age": HOSTILE[0], "city": "__proto__"})
    settings = real.EndpointSettings(page=True)
    with real.serve_champion(store, settings, token="right-token") as endpoint:
        page = visit(endpoint.url)
        page.get_by_label("Token", exact=True).fill("right-token")
        page.get_by_role("button", name="Continue").click()
        page.get_by_role("heading", name="No model yet").wait_for()
        real.register(store, table)
        endpoint.champion.refresh()
        page.get_by_role("heading", name="Predict target").wait_for()
        typical = endpoint.ask("/model").json()["typical_row"]
        assert typical.keys() == set(table.columns)
        page.get_by_role("button", name="Fill with a typical row").click()
        predict(page)
        (answer,) = endpoint.ask("/predict", {"rows": [typical]}).json()["predictions"]
        assert page.locator("#answer .label").text_content() == answer["label"]
        assert names_of(page, "#answer .bars bdi")[0] == answer["label"]
        page.get_by_label("__proto__").select_option(label="(something else)")
        page.get_by_label("income").fill("")
        page.get_by_label(HOSTILE[0]).fill("1e300")
        predict(page)
        assert page.locator("#problems").is_hidden()
        # A new version with another column: the form is renewed and asks once more.
        real.register(store, table.assign(county=1.5))
        endpoint.champion.refresh()
        predict(page)
        assert page.get_by_label("county").count() == 1
        assert "version 2" in page.locator("#answer").text_content()
