"""Logger plugin of Snakemake (`snakemake --logger octdino`, the default of profiles/default): a quiet, live view.

With --verbose or --debug-dag this plugin shows nothing, and Snakemake prints as it does without it. An error in the
view never ends a run: plain lines follow, and if they fail too, none.
"""

import logging
import sys
import threading
from types import TracebackType
from typing import TextIO

from snakemake_interface_logger_plugins.base import LogHandlerBase

REFRESH = 1.0  # seconds


class LogHandler(LogHandlerBase):
    """The handler that Snakemake makes for a run; its records arrive in one thread, redrawing is done in another."""

    def __post_init__(self) -> None:
        from octdino.terminal.run_view import RunView
        from octdino.terminal.screen import Screen

        settings = self.common_settings
        self._silent = bool(settings.verbose or settings.debug_dag)
        self._stream: TextIO = sys.stdout if settings.stdout else sys.stderr
        self._over, self._mutex = threading.Event(), threading.Lock()
        self._view: RunView | None = None
        self._thread: threading.Thread | None = None
        if not self._silent:
            dry = bool(settings.dryrun)
            screen = Screen(self._stream, color=not settings.nocolor, live=False if dry else None)
            self._view = RunView(screen, dry)
            say_ctrl_c_in_one_line(self._stream)
            if screen.live:
                self._thread = threading.Thread(target=self._redraw, name="octdino view", daemon=True)
                self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record; errors of the view are never passed on."""
        with self._mutex:
            self._guarded("take", record)

    def close(self) -> None:
        """Show the end of the run; Snakemake calls it once, after the last record."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        with self._mutex:
            self._guarded("close")
            self._view = None
        super().close()

    def _redraw(self) -> None:
        while not self._over.wait(REFRESH):
            with self._mutex:
                self._guarded("refresh")

    def _guarded(self, method: str, *arguments: object) -> None:
        """Call a method of the view; after an error in it again with plain lines, after a second one no more."""
        if self._view is None:
            return
        try:
            getattr(self._view, method)(*arguments)
        except Exception as error:
            try:
                live, self._view.screen.live, self._view.screen.drawn = self._view.screen.live, False, []
                if not live:
                    raise
                self._stream.write(f"\noctdino: the live view failed ({error!r}); plain lines follow\n")
                getattr(self._view, method)(*arguments)
            except Exception:
                self._view = None

    @property
    def writes_to_stream(self) -> bool:
        """Whether this is the handler of the terminal; otherwise Snakemake adds its own."""
        return not self._silent

    @property
    def writes_to_file(self) -> bool:
        """Snakemake writes its file in .snakemake/log itself."""
        return False

    @property
    def has_filter(self) -> bool:
        """Snakemake's own filter is used: --quiet, --printshellcmds."""
        return False

    @property
    def has_formatter(self) -> bool:
        """Records are taken apart, not formatted."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """The graph of rules is not shown."""
        return False


def say_ctrl_c_in_one_line(stream: TextIO) -> None:
    """Replace the traceback of a KeyboardInterrupt, where Snakemake handles none: before any job is started."""
    others = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            stream.write("Stopped by Ctrl-C before any job was started.\n")
        else:
            others(kind, error, trace)

    sys.excepthook = hook
