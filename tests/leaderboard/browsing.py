"""Pages of a site in a browser, and what is read off them."""

FIRST = "#table-bundled-causal-tiny"


class Watched:
    """A page of a site, and all that goes wrong on it."""

    def __init__(self, browser, folder, **context):
        self.folder, self.problems = folder, []
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, **context}
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        note = self.problems.append
        self.page.on("console", lambda message: note(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: note(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (note("dialog"), dialog.dismiss()))
        self.page.on("requestfailed", self._failed)
        self.page.on("request", self._request)

    def _request(self, request):
        if not request.url.startswith(self.folder.as_uri()):
            self.problems.append(f"request: {request.url}")

    def _failed(self, request):
        if request.failure != "net::ERR_ABORTED":  # what a page had not read when it was left
            self.problems.append(f"failed: {request.url} ({request.failure})")

    def open(self, name):
        self.page.goto(f"{self.folder.as_uri()}/{name}")
        return self.page

    def texts(self, selector):
        return self.page.locator(selector).all_inner_texts()


def names(watched):
    return watched.texts(f"{FIRST} tbody th[scope=row] .name")


def numbers(watched, column):
    cells = watched.texts(f"{FIRST} tbody tr:not(.kind) > :nth-child({column})")
    return [float(text.split(" ")[0].replace("−", "-")) for text in cells if text != "–"]
