"""Gateways as their peers meet them: certificates, requests, links that are cut."""
