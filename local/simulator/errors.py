"""The services' errors: every body on the wire comes from here.

A code that a public source names is used as it stands there. Where the source gives no text, the text is ours and only
the status and the code are worth asserting on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from local.simulator.wire import Json, Reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class ServiceError(Exception):
    """A refusal with the service's own status, code and text."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        inner: str | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        self.inner = inner

    def reply(self) -> Reply:
        """The refusal in ARM's shape, which Key Vault and Event Grid share."""
        error: Json = {"code": self.code, "message": self.message}
        if self.inner is not None:
            error["innererror"] = {"code": self.inner}
        return Reply(self.status, {"error": error}, self.headers)


def authentication_failed(tenant_id: str, code: str, message: str) -> ServiceError:
    """ARM's 401. Source: Azure Resource Manager, common deployment errors and the Azure SDKs' challenge tests."""
    challenge = (
        f'Bearer authorization_uri="https://login.windows.net/{tenant_id}", '
        f'error="invalid_token", error_description="{message}"'
    )
    return ServiceError(401, code, message, headers={"WWW-Authenticate": challenge})


def authorization_failed(object_id: str, action: str, scope: str) -> ServiceError:
    """ARM's 403. Source: Azure Resource Manager, common deployment errors."""
    text = (
        f"The client '{object_id}' with object id '{object_id}' does not have authorization to perform action "
        f"'{action}' over scope '{scope}' or the scope is invalid. "
        "If access was recently granted, please refresh your credentials."
    )
    return ServiceError(403, "AuthorizationFailed", text)


def linked_authorization_failed(
    object_id: str, action: str, scope: str, lacking: Sequence[tuple[str, str]]
) -> ServiceError:
    """ARM's 403 for what a call refers to. Source: text in Azure/enterprise-azure-policy-as-code pull request 1339."""
    actions, scopes = (",".join(part) for part in zip(*lacking, strict=True))
    text = (
        f"The client '{object_id}' with object id '{object_id}' has permission to perform action '{action}' on scope "
        f"'{scope}'; however, it does not have permission to perform action(s) '{actions}' on the linked scope(s) "
        f"'{scopes}' (respectively) or the linked scope(s) are invalid."
    )
    return ServiceError(403, "LinkedAuthorizationFailed", text)


def missing_api_version() -> ServiceError:
    """Source: Azure Resource Manager, common deployment errors."""
    text = "The api-version query parameter (?api-version=) is required for all requests."
    return ServiceError(400, "MissingApiVersionParameter", text)


def subscription_not_found(subscription: str) -> ServiceError:
    """Source: Azure Resource Manager, common deployment errors."""
    return ServiceError(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")


def resource_group_not_found(group: str) -> ServiceError:
    """Source: Azure Resource Manager, common deployment errors."""
    return ServiceError(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")


def resource_not_found(resource: str, group: str) -> ServiceError:
    """`resource` is type and name. Source: traffic recorded in the aks-preview extension's tests."""
    text = (
        f"The Resource '{resource}' under resource group '{group}' was not found. "
        "For more details please go to https://aka.ms/ARMResourceNotFoundFix"
    )
    return ServiceError(404, "ResourceNotFound", text, headers={"x-ms-failure-cause": "gateway"})


def invalid_request_content(message: str) -> ServiceError:
    """The body is not what ARM can read. Source: Azure Resource Manager, common deployment errors."""
    return ServiceError(400, "InvalidRequestContent", message)


def location_required() -> ServiceError:
    """Source: Azure Resource Manager, common deployment errors."""
    return ServiceError(400, "LocationRequired", "The location property is required for this definition.")


def location_differs(name: str, group: str, location: str, wanted: str) -> ServiceError:
    """What exists stays where it is. Source: Azure Resource Manager, common deployment errors."""
    text = (
        f"The resource '{name}' already exists in location '{location}' in resource group '{group}'. "
        f"A resource with the same name cannot be created in location '{wanted}'. Please select a new resource name."
    )
    return ServiceError(409, "InvalidResourceLocation", text)


def bad_request(message: str) -> ServiceError:
    """What a resource provider says to a document that it does not take: AKS, Key Vault, Managed Identity."""
    return ServiceError(400, "BadRequest", message)


def failed_identity_operation(resource_id: str) -> ServiceError:
    """An identity can't be given to a resource. Source: Azure/azure-cli issue 31837; the status is a conclusion."""
    text = (
        f"Identity operation for resource '{resource_id}' failed with error 'Failed to perform resource identity "
        'operation. Status: \'BadRequest\'. Response: \'{"error":{"code":"BadRequest","message":"Bad request."}}\'.\'.'
    )
    return ServiceError(400, "FailedIdentityOperation", text)


def precondition_failed(message: str) -> ServiceError:
    """The eTag is not the one asked for. Source: AKS docs, use-etags."""
    return ServiceError(412, "PreConditionFailed", message)


def operation_not_allowed(message: str) -> ServiceError:
    """409. The code is in circulation for AKS, its use is not documented: a client should decide by the status."""
    return ServiceError(409, "OperationNotAllowed", message)


def throttled(retry_after: int) -> ServiceError:
    """`retry_after` in seconds. Source: AKS docs, quotas-skus-regions."""
    text = f"The request is throttled, please try again after {retry_after} seconds."
    return ServiceError(429, "Throttled", text, headers={"Retry-After": str(retry_after)})


def not_simulated(method: str, host: str, path: str) -> ServiceError:
    """No service here knows this call: loud, so that no test passes over it."""
    return ServiceError(501, "NotSimulated", f"{method} https://{host}{path} is not simulated")
