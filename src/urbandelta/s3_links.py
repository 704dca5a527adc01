"""s3:// addresses as HTTPS links that are signed for a while (extra `s3`).

Credentials, region and endpoint are AWS's own business: environment (`AWS_ACCESS_KEY_ID`, `AWS_PROFILE`,
`AWS_ENDPOINT_URL`), profile files, or the role of a machine. `AWS_NO_SIGN_REQUEST=YES` reads public buckets.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

from urbandelta.addresses import HideAll, shown
from urbandelta.errors import ConfigError, FetchError

VALID_FOR = timedelta(minutes=15)


class S3Links:
    """Makes links for s3:// addresses; `requester_pays` says that the bucket's readers pay."""

    def __init__(self, *, requester_pays: bool = False, client: Callable[[], Any] | None = None) -> None:
        self._requester_pays = requester_pays
        self._make = client or _client
        self._lock = threading.Lock()
        self._made: Any = None

    def link(self, href: str) -> tuple[str, dict[str, str], datetime]:
        """A link, headers that must go with it, and when it ends.

        Raises
        ------
        FetchError
            If there are no credentials, or the address names no object.
        ConfigError
            Without the extra, or if the configured endpoint is none.
        """
        parts = urlsplit(href)
        if not parts.netloc or not parts.path.strip("/"):
            raise FetchError(f"{shown(href)}: names no object of a bucket (s3://BUCKET/KEY)")
        parameters = {"Bucket": parts.netloc, "Key": unquote(parts.path[1:])}
        if self._requester_pays:
            parameters["RequestPayer"] = "requester"
        client = self._client_for(href)
        import botocore.exceptions

        made = datetime.now(UTC)
        try:
            url = client.generate_presigned_url(
                "get_object", Params=parameters, ExpiresIn=int(VALID_FOR.total_seconds())
            )
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            raise FetchError(
                f"{shown(href)}: cannot be signed ({type(error).__name__}); set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or AWS_NO_SIGN_REQUEST=YES for a public bucket"
            ) from None
        # It is part of what is signed, but not of the address.
        headers = {"x-amz-request-payer": "requester"} if self._requester_pays else {}
        return str(url), headers, made + VALID_FOR

    def _client_for(self, href: str) -> Any:
        with self._lock:
            if self._made is None:
                try:
                    self._made = self._make()
                except ModuleNotFoundError:
                    raise ConfigError(
                        f"{shown(href)}: s3:// addresses need the extra s3; pip install 'urbandelta[s3]'"
                    ) from None
                except ValueError as error:  # boto's words for an endpoint that is none
                    raise ConfigError(f"{shown(href)}: AWS_ENDPOINT_URL is no address") from error
            return self._made


def _client() -> Any:
    import boto3
    import botocore
    from botocore.config import Config

    # At its lowest level the library logs what it signs, token and all.
    signing = logging.getLogger("botocore.auth")
    if not any(isinstance(known, HideAll) for known in signing.filters):
        signing.addFilter(HideAll())
    public = os.environ.get("AWS_NO_SIGN_REQUEST", "").upper() in ("YES", "TRUE", "1")
    # A session of one's own: the library's common one keeps the credentials that it saw first.
    return boto3.session.Session().client(
        "s3",
        region_name=os.environ.get("AWS_REGION") or None,
        config=Config(
            signature_version=botocore.UNSIGNED if public else "s3v4",
            # A server of one's own has one name for all buckets; AWS's name of old sends on to the region's, for which
            # the signature does not hold.
            s3={"addressing_style": "path" if os.environ.get("AWS_ENDPOINT_URL") else "virtual"},
        ),
    )
