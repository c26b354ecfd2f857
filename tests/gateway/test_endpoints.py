"""The pages for operators are for operators, and show no credential."""

import pytest
from support.inprocess import running

AUTH = {"auth": {"enabled": True, "type": "bearer", "token": "t" * 20}}
OPERATOR = [("Authorization", "Bearer " + "t" * 20)]
PAGES = ["/health", "/health/live", "/servers", "/metrics"]


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_read_with_get_or_head_alone(tmp_path, path):
    async with running(tmp_path) as gateway:
        page = await gateway.get(path)
        assert page.status in (200, 503)
        assert page.header("cache-control") == "no-store"
        head = await gateway.request("HEAD", path)
        assert (head.status, head.body) == (page.status, b"")
        for method in ("POST", "PUT", "DELETE"):
            refused = await gateway.request(method, path, b"{}")
            assert (refused.status, refused.header("allow")) == (405, "GET")


async def test_pages_ask_for_a_credential_where_clients_need_one(tmp_path):
    async with running(tmp_path, AUTH) as gateway:
        for path in ("/servers", "/metrics"):
            assert (await gateway.get(path)).status == 401
            assert (await gateway.get(path, OPERATOR)).status == 200
        assert "demo" not in (await gateway.get("/health")).body.decode()
        assert "demo" in (await gateway.get("/health", OPERATOR)).body.decode()
        assert (await gateway.get("/health/live")).json == {"status": "alive"}


async def test_a_page_may_be_made_public(tmp_path):
    config = {"auth": {**AUTH["auth"], "public": ["metrics"]}}
    async with running(tmp_path, config) as gateway:
        assert (await gateway.get("/metrics")).status == 200
        assert (await gateway.get("/servers")).status == 401


async def test_no_page_shows_a_credential_in_a_url(tmp_path):
    url = "http://127.0.0.1:9/mcp?key=correct-horse"
    async with running(tmp_path, {"servers": [{"name": "demo", "url": url}]}) as gateway:
        for path in PAGES:
            page = await gateway.get(path)
            assert b"correct-horse" not in page.body, path
        assert [server["name"] for server in (await gateway.get("/servers")).json["servers"]] == [
            "demo"
        ]
