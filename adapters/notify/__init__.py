"""Channels of alerts: log file, e-mail, Slack, signed webhook. Each is a quant.ports.Notifier."""

from adapters.notify.email import EmailNotifier, MailSecurity
from adapters.notify.log import LogNotifier
from adapters.notify.slack import SlackNotifier
from adapters.notify.webhook import WebhookNotifier

__all__ = ["EmailNotifier", "LogNotifier", "MailSecurity", "SlackNotifier", "WebhookNotifier"]
