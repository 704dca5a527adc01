import io
import logging
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
from servers import range_server as faults
from servers.range_server import RangeServer, range_server

from urbandelta.addresses import shown
from urbandelta.errors import ConfigError, FetchError
from urbandelta.http_answers import Version, retry_after
from urbandelta.transport import Clock, SignedUrl, Transport, TransportOptions

DATA = np.random.default_rng(3).integers(0, 256, 1_000_000, np.uint8).tobytes()
NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)


class FakeClock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.seconds = 0.0

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds

    def clock(self) -> Clock:
        return Clock(
            monotonic=lambda: self.seconds,
            now=lambda: NOW + timedelta(seconds=self.seconds),
            sleep=self.sleep,
            chance=lambda: 0.0,
        )


@pytest.fixture
def time() -> FakeClock:
    return FakeClock()


@pytest.fixture
def server():
    with range_server({"/a.tif": DATA, "/small": DATA[:100], "/empty": b""}) as running:
        yield running


@pytest.fixture
def open_transport(time):
    made = []

    def make(sign=None, **options) -> Transport:
        made.append(Transport(TransportOptions(**options), sign=sign, clock=time.clock()))
        return made[-1]

    yield make
    for transport in made:
        transport.close()


def test_a_file_reads_as_on_disk(server, open_transport):
    file = open_transport().open(server.url("/a.tif"))
    assert isinstance(file, io.RawIOBase)
    assert (file.size, file.seekable(), file.readable(), file.writable()) == (len(DATA), True, True, False)
    assert file.read(10) == DATA[:10]
    assert file.tell() == 10
    file.seek(-7, io.SEEK_END)
    assert file.read(100) == DATA[-7:]
    assert file.read() == b""
    file.seek(123_456)
    assert io.BufferedReader(file).read(200_000) == DATA[123_456:323_456]
    with pytest.raises(ValueError, match="no place"):
        file.seek(-1)


def test_a_file_that_came_with_its_first_bytes_is_not_asked_for_again(server, open_transport):
    file = open_transport().open(server.url("/small"))
    assert file.read() == DATA[:100]
    assert len(server.requests) == 1


def test_prefetching_joins_neighbours_and_holds_what_it_fetched(server, open_transport):
    transport = open_transport(block_bytes=1000, first_bytes=1000, merge_bytes=2000, ahead_bytes=1000, cache_bytes=1000)
    file = transport.open(server.url("/a.tif"))
    file.prefetch([(500_500, 501_500), (10_000, 10_500), (12_999, 13_001), (503_900, 503_950), (999_999, 2_000_000)])
    assert sorted(server.spans[1:]) == [(10_000, 14_000), (500_000, 504_000), (999_000, 1_000_000)]
    asked = len(server.requests)
    assert file.read_range(500_000, 502_000) == DATA[500_000:502_000]
    assert file.read_range(999_500, 2_000_000) == DATA[999_500:]
    assert len(server.requests) == asked
    file.prefetch([])
    file.read_range(10_000, 10_100)
    assert len(server.requests) == asked + 1, "what is held ends with the next prefetch, and the cache is small"


def test_long_ranges_are_split_and_connections_used_again(server, open_transport):
    transport = open_transport(request_bytes=100 * 1024, connections=4)
    file = transport.open(server.url("/a.tif"))
    file.prefetch([(0, len(DATA))])
    assert len(server.requests) == 1 + 10
    for _ in range(3):
        file.prefetch([(600_000, 700_000)])
    assert file.read_range(0, len(DATA)) == DATA
    assert server.connections <= 5


def test_the_cache_is_bounded(server, open_transport):
    transport = open_transport(block_bytes=10_000, cache_bytes=50_000)
    file = transport.open(server.url("/a.tif"))
    for start in range(0, 900_000, 9_000):
        assert file.read_range(start, start + 100) == DATA[start : start + 100]
        assert transport._cache.bytes_kept <= 50_000


def test_files_of_one_address_share_what_they_fetch(server, open_transport):
    transport = open_transport()
    files = [transport.open(server.url("/a.tif")) for _ in range(8)]
    threads = [threading.Thread(target=file.prefetch, args=([(300_000, 600_000)],)) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(file.read_range(300_000, 600_000) == DATA[300_000:600_000] for file in files)
    assert len(server.requests) == 2


def test_threads_read_the_right_bytes(server, open_transport):
    file = open_transport(block_bytes=4096, cache_bytes=65_536).open(server.url("/a.tif"))
    wrong = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        starts = rng.integers(0, len(DATA), 20)
        wrong.extend(start for start in starts if file.read_range(start, start + 5000) != DATA[start : start + 5000])

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


PASSING = {
    "429": faults.status(429),
    "500": faults.status(500),
    "502": faults.status(502),
    "503": faults.status(503, {"Retry-After": "3"}),
    "truncated": faults.truncated,
    "short": faults.short,
    "long": faults.long,
    "shifted": faults.shifted,
    "no Content-Range": faults.headers(Content_Range=None),
    "odd Content-Range": faults.headers(Content_Range="bytes 0-5/*"),
    "lying Content-Length": faults.headers(Content_Length="17"),
    "hangs up": faults.hangs_up,
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_tried_again_and_the_bytes_are_right(name, server, open_transport, time):
    file = open_transport().open(server.url("/a.tif"))
    server.faults = [PASSING[name], PASSING[name]]
    assert file.read_range(400_000, 500_000) == DATA[400_000:500_000]
    assert len(server.requests) == 4
    assert time.slept == ([3.0, 3.0] if name == "503" else [0.5, 1.0])


@pytest.mark.parametrize("name", PASSING)
def test_what_does_not_pass_is_an_error_without_secrets(name, server, open_transport, time):
    href = server.url("/a.tif?sig=S3CRET").replace("http://", "http://me:PASSW0RD@")
    file = open_transport().open(href)
    server.always = PASSING[name]
    with pytest.raises(FetchError, match=r"/a\.tif: .*\(tried 6 times\)") as caught:
        file.read_range(400_000, 500_000)
    assert not any(secret in str(caught.value) for secret in ("S3CRET", "PASSW0RD", "me:"))
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert len(server.requests) == 1 + 6


def test_an_open_that_fails_can_be_repeated(server, open_transport):
    transport = open_transport(tries=1)
    server.faults = [faults.status(500)]
    with pytest.raises(FetchError, match=r"answered 500 \(tried once"):
        transport.open(server.url("/a.tif"))
    assert transport.open(server.url("/a.tif")).size == len(DATA)


@pytest.mark.parametrize("fault", [faults.hangs, faults.hangs_midway])
def test_a_hang_ends(fault, server, open_transport):
    file = open_transport(read_seconds=0.05).open(server.url("/a.tif"))
    server.faults = [fault]
    assert file.read_range(400_000, 410_000) == DATA[400_000:410_000]
    server.always = fault
    with pytest.raises(FetchError, match="stopped sending"):
        file.read_range(700_000, 710_000)


def test_a_body_that_drips_ends_at_the_deadline(server, open_transport, time):
    transport = open_transport(deadline_seconds=5, tries=2)
    file = transport.open(server.url("/a.tif"))

    def drips(exchange: faults.Exchange) -> None:
        time.seconds += 6

    server.faults = [drips]
    assert file.read_range(400_000, 400_100) == DATA[400_000:400_100]
    server.always = drips
    with pytest.raises(FetchError, match=r"sent too slowly \(tried 2 times\)"):
        file.read_range(700_000, 700_100)


def test_nobody_at_the_address(open_transport):
    with range_server({}) as gone:
        url = gone.url("/a.tif")
    with pytest.raises(FetchError, match="cannot be reached"):
        open_transport(tries=2).open(url)


def test_pauses_double_up_to_a_limit_and_are_shortened_by_chance(server, time):
    server.always = faults.status(500)
    options = TransportOptions(tries=6, pause_seconds=1, longest_pause=5)
    clock = time.clock()
    for chance, expected in ((0.0, [1, 2, 4, 5, 5]), (1.0, [0.5, 1, 2, 2.5, 2.5])):
        time.slept.clear()
        one = Clock(monotonic=clock.monotonic, now=clock.now, sleep=clock.sleep, chance=lambda value=chance: value)
        with pytest.raises(FetchError):
            Transport(options, clock=one).get(server.url("/a.tif"))
        assert time.slept == expected


def test_retry_after_is_heeded_up_to_a_limit(server, open_transport, time):
    date = format_datetime(NOW + timedelta(seconds=40), usegmt=True)
    server.faults = [
        faults.status(429, {"Retry-After": "7"}),
        faults.status(503, {"Retry-After": date}),
        faults.status(503, {"Retry-After": "86400"}),
        faults.status(503, {"Retry-After": "soon"}),
    ]
    assert open_transport(longest_wait=100).get(server.url("/small")) == DATA[:100]
    assert time.slept == [7, 33, 100, 0.5]


def test_retry_after_says_seconds_or_a_date():
    assert retry_after("12", NOW) == 12
    assert retry_after("Wed, 01 May 2024 12:01:00 GMT", NOW) == 60
    assert retry_after("Wed, 01 May 2024 11:00:00 GMT", NOW) == 0
    assert retry_after("Wed, 01 May 2024 12:01:00", NOW) == 60
    for text in (None, "", "-3", "later"):
        assert retry_after(text, NOW) is None


@pytest.mark.parametrize("changed", [{"ETag": '"two"'}, {"Content_Range": "bytes 400000-400099/1000001"}])
def test_a_file_that_is_exchanged_while_it_is_read_is_an_error(changed, server, open_transport):
    file = open_transport(ahead_bytes=16_384).open(server.url("/a.tif"))
    server.always = faults.headers(**changed)
    with pytest.raises(FetchError, match="exchanged while it was read; run the same command again"):
        file.read_range(400_000, 400_100)
    assert len(server.requests) == 2
    server.always = None
    del file
    assert open_transport().open(server.url("/a.tif")).read_range(0, 9) == DATA[:9]


def test_a_file_that_shrinks_while_it_is_read_is_an_error(server, open_transport):
    file = open_transport().open(server.url("/a.tif"))
    server.files["/a.tif"] = DATA[:1000]
    with pytest.raises(FetchError, match="exchanged while it was read"):
        file.read_range(400_000, 400_100)


def test_versions():
    assert Version(1, "a", "x").same(Version(1, "a", "y"))
    assert not Version(1, "a").same(Version(2, "a"))
    assert not Version(1, "a", "x").same(Version(1, "b", "x"))
    assert not Version(1, "", "x").same(Version(1, "a", "y"))
    assert Version(1).same(Version(1, "a", "x"))


def test_a_server_without_ranges_is_read_whole_once_or_refused(server, open_transport):
    server.always = faults.ignores_range
    file = open_transport().open(server.url("/a.tif"))
    assert (file.size, file.read_range(999_000, 1_000_000)) == (len(DATA), DATA[999_000:])
    file.prefetch([(5, 500_000)])
    assert len(server.requests) == 1
    with pytest.raises(FetchError, match="sends 1000000 bytes at once and gives no ranges"):
        open_transport(largest_document=999_999).open(server.url("/a.tif"))


def test_a_server_that_stops_giving_ranges(server, open_transport):
    file = open_transport().open(server.url("/a.tif"))
    server.always = faults.ignores_range
    assert file.read_range(400_000, 400_100) == DATA[400_000:400_100]
    assert file.read_range(900_000, 900_100) == DATA[900_000:900_100]
    assert len(server.requests) == 2


@pytest.mark.parametrize("ask", ["get", "open"])
def test_bodies_without_end_and_lies_about_size_are_bounded(ask, server, open_transport):
    transport = open_transport(largest_document=1_000_000)
    server.faults = [faults.endless]
    with pytest.raises(FetchError, match="more than 1000000 bytes"):
        getattr(transport, ask)(server.url("/a.tif"))
    server.faults = [faults.status(200, {"Content-Length": str(10**15)})]
    with pytest.raises(FetchError, match="1000000000000000 bytes at once"):
        getattr(transport, ask)(server.url("/a.tif"))


def test_a_file_of_any_claimed_size_is_only_read_in_parts(server, open_transport):
    server.faults = [faults.headers(Content_Range=f"bytes 0-65535/{10**15}")]
    file = open_transport().open(server.url("/a.tif"))
    assert file.size == 10**15
    with pytest.raises(FetchError, match="bytes at once are not read"):
        file.read()
    with pytest.raises(FetchError, match="bytes at once are not fetched"):
        file.prefetch([(0, 10**14)])
    with pytest.raises(FetchError, match="exchanged"):
        file.read_range(70_000, 70_100)


def test_compressed_documents_are_unpacked_within_bounds_and_compressed_ranges_refused(server, open_transport):
    import gzip

    def packed(data: bytes) -> faults.Fault:
        body = gzip.compress(data)
        return faults.status(200, {"Content-Encoding": "gzip", "Content-Length": str(len(body))}, body)

    transport = open_transport(largest_document=1_000_000)
    server.faults = [packed(b'{"a": 1}')]
    assert transport.get(server.url("/small")) == b'{"a": 1}'
    server.faults = [packed(bytes(10_000_000))]
    with pytest.raises(FetchError, match="unpacks to more than 1000000 bytes"):
        transport.get(server.url("/small"))
    server.faults = [faults.headers(Content_Encoding="gzip")]
    with pytest.raises(FetchError, match="compressed"):
        transport.open(server.url("/a.tif"))


@pytest.mark.parametrize(
    ("path", "cause"), [("/none", r"is not there \(404\)"), ("/empty", r"is empty, or gives no ranges \(416\)")]
)
def test_what_is_not_there_is_asked_for_once(path, cause, server, open_transport):
    with pytest.raises(FetchError, match=cause):
        open_transport().open(server.url(path))
    assert len(server.requests) == 1


def test_an_address_must_be_one(open_transport):
    for href in ("ftp://host/a.tif", "http://", "http://[::1/a", "gopher://x"):
        with pytest.raises(FetchError, match="addres"):
            open_transport(tries=1).open(href)


def test_signing_happens_when_needed(server, open_transport, time):
    server.always = faults.needs("sig=2")
    signed = []

    def sign(href: str) -> SignedUrl:
        signed.append(href)
        return SignedUrl(f"{href}?sig={len(signed)}", {"X-Secret": "h"}, NOW + timedelta(seconds=600))

    file = open_transport(sign).open(server.url("/a.tif"))
    assert [request.query for request in server.requests] == ["sig=1", "sig=2"]
    assert server.requests[1].headers["X-Secret"] == "h"
    file.prefetch([(200_000, 210_000), (800_000, 810_000)])
    assert len(signed) == 2, "a signature serves until it ends"
    assert time.slept == [0]
    server.always = faults.needs("sig=3")
    time.seconds = 580
    assert file.read_range(500_000, 500_100) == DATA[500_000:500_100]
    assert (len(signed), server.requests[-2].query, server.requests[-1].query) == (3, "sig=2", "sig=3")


@pytest.mark.parametrize("code", [400, 401, 403])
def test_a_signature_that_is_never_accepted(code, server, open_transport):
    server.always = faults.status(code)
    signed = []

    def sign(href: str) -> SignedUrl:
        signed.append(href)
        return SignedUrl(f"{href}?sig=S3CRET{len(signed)}")

    with pytest.raises(FetchError, match=rf"refused \({code}\); are there credentials") as caught:
        open_transport(sign).open(server.url("/a.tif"))
    assert len(signed) == 3
    assert "S3CRET" not in str(caught.value)


def test_a_refusal_without_a_signer_is_final(server, open_transport):
    server.always = faults.status(403)
    with pytest.raises(FetchError, match=r"refused \(403\)"):
        open_transport().open(server.url("/a.tif"))
    assert len(server.requests) == 1


def test_many_ranges_refused_together_are_signed_once(server, open_transport):
    signed = []

    def sign(href: str) -> SignedUrl:
        signed.append(href)
        return SignedUrl(f"{href}?sig={len(signed)}")

    server.always = faults.needs("sig=1")
    file = open_transport(sign, block_bytes=1000, merge_bytes=1).open(server.url("/a.tif"))
    server.always = faults.needs("sig=2")
    file.prefetch([(start, start + 10) for start in range(100_000, 900_000, 50_000)])
    assert len(signed) == 2


def test_a_signer_that_fails_tells_no_secret(server, open_transport):
    def sign(href: str) -> SignedUrl:
        raise KeyError("S3CRET")

    with pytest.raises(FetchError, match=r"cannot be signed \(KeyError\)") as caught:
        open_transport(sign).open(server.url("/a.tif"))
    assert "S3CRET" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_redirects_are_followed_and_secrets_stay_behind(server, open_transport):
    with range_server({"/b.tif": DATA}) as other:
        server.always = faults.redirect(other.url("/b.tif?sig=other"), 307)
        transport = open_transport(lambda href: SignedUrl(href, {"Authorization": "Bearer S3CRET", "X-Key": "k"}))
        file = transport.open(server.url("/a.tif"))
        assert file.read_range(400_000, 400_100) == DATA[400_000:400_100]
        assert server.requests[0].headers["Authorization"] == "Bearer S3CRET"
        assert not {"Authorization", "X-Key"} & set(other.requests[0].headers)
        assert other.requests[0].span == (0, 65536)
    server.always = faults.redirect("/a.tif")
    with pytest.raises(FetchError, match="sends from one address to the next"):
        open_transport().open(server.url("/a.tif"))
    server.always = faults.redirect("file:///etc/passwd")
    with pytest.raises(FetchError, match="sends to no address"):
        open_transport().open(server.url("/a.tif"))


def test_a_user_in_an_address_becomes_a_header(server, open_transport):
    href = server.url("/a.tif").replace("http://", "http://me:p%40ss@")
    open_transport().open(href)
    assert server.requests[0].headers["Authorization"] == "Basic bWU6cEBzcw=="
    assert server.requests[0].headers["User-Agent"] == "urbandelta"
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


def test_secrets_are_in_no_log_and_no_repr(server, open_transport, caplog):
    caplog.set_level(logging.DEBUG)
    server.faults = [faults.status(500), faults.truncated, faults.status(403), None]
    transport = open_transport(lambda href: SignedUrl(f"{href}?sig=S3CRET", {"Authorization": "S3CRET"}))
    file = transport.open(server.url("/a.tif"))
    file.read_range(500_000, 500_100)
    assert "GET /a.tif?... HTTP/1.1" in caplog.text, "the HTTP library does log addresses"
    things = [transport, file, SignedUrl("http://x?S3CRET", {"a": "S3CRET"}), transport._signed]
    assert "S3CRET" not in caplog.text + "".join(map(repr, things))


def test_a_closed_transport_gives_up(server):
    transport = Transport(TransportOptions(pause_seconds=1000, longest_pause=1000))
    file = transport.open(server.url("/a.tif"))
    server.always = faults.status(500)
    errors = []

    def read() -> None:
        try:
            file.read_range(500_000, 500_100)
        except FetchError as error:
            errors.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    while len(server.requests) < 2:
        reader.join(0.001)
    transport.close()
    reader.join(5)
    assert len(errors) == 1
    assert "reading was stopped" in errors[0]
    with pytest.raises(FetchError, match="stopped"):
        file.read_range(700_000, 700_100)


def test_files_on_disk_are_read_through_the_same_interface(tmp_path, open_transport):
    path = tmp_path / "a file?.tif"
    path.write_bytes(DATA)
    transport = open_transport()
    for href in (str(path), path.as_uri()):
        file = transport.open(href)
        file.prefetch([(0, 1000)])
        assert (file.size, file.read_range(500_000, 2_000_000)) == (len(DATA), DATA[500_000:])
        assert transport.get(href) == DATA
    with open(path, "r+b") as writer:
        writer.truncate(10)
    with pytest.raises(FetchError, match="was cut while it was read"):
        file.read_range(500_000, 500_100)
    for href in (str(tmp_path / "none"), (tmp_path / "none").as_uri()):
        with pytest.raises(FetchError, match="No such file"):
            transport.open(href)


def test_addresses_are_shown_without_what_may_be_secret():
    assert shown("https://me:pw@host:8/a/b.tif?sig=x#y") == "https://host:8/a/b.tif"
    assert shown("/a/b?c.tif") == "/a/b?c.tif"
    assert shown("http://[::1/a?sig=x") == "an address that is none"


def test_options_must_make_sense():
    with pytest.raises(ConfigError, match="tries of a transport must be positive, not 0"):
        TransportOptions(tries=0)


def test_proxies_of_the_environment_are_used(server: RangeServer, open_transport, monkeypatch):
    monkeypatch.setenv("http_proxy", server.base.replace("http://", "http://me:S3CRET@"))
    monkeypatch.setenv("no_proxy", "")
    server.files["/somewhere"] = DATA
    assert open_transport().open("http://example.invalid/somewhere").read_range(0, 9) == DATA[:9]
    assert "Proxy-Authorization" in server.requests[0].headers
