-- Answers of REST, as the gateway gives them: headers for browsers, and errors of agents in the form of AIP-193, where
-- Envoy's transcoder writes a bare google.rpc.Status.
local NAMES = {
  [0] = "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
  "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

function envoy_on_response(handle)
  local headers = handle:headers()
  headers:replace("x-content-type-options", "nosniff")
  headers:replace("referrer-policy", "no-referrer")
  headers:replace("x-frame-options", "DENY")
  if headers:get("cache-control") == nil then
    headers:add("cache-control", "no-store")
  end
  local status = headers:get(":status")
  if status < "400" then
    return
  end
  local body = handle:body()
  if body == nil then
    return
  end
  local code, rest = body:getBytes(0, body:length()):match('^{"code":(%d+)(.*)}$')
  if code ~= nil then
    local name = NAMES[tonumber(code)] or "UNKNOWN"
    body:setBytes('{"error":{"code":' .. status .. ',"status":"' .. name .. '"' .. rest .. "}}")
  end
end
