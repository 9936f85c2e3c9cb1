"""The web page: a playground, live charts and the last requests with their stages. Plain files, no build step, nothing from elsewhere."""

from penstock.gateway.page.files import login_page
from penstock.gateway.page.page import Page

__all__ = ["Page", "login_page"]
