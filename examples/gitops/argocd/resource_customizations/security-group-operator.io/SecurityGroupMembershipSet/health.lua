-- Suspended, Degraded (a human or another system must act), Healthy, or Progressing. For every kind of security-group-operator.io.
local status = obj.status or {}
if status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "waiting for the operator"}
end
local found = {}
for _, condition in ipairs(status.conditions or {}) do
  found[condition.type .. "=" .. condition.status] = condition
end
local health = {
  {"Suspended=True", "Suspended"},
  {"Stalled=True", "Degraded"},
  {"Reachable=False", "Degraded"},
  {"Ready=True", "Healthy"},
  {"Ready=False", "Progressing"},
  {"Ready=Unknown", "Progressing"},
}
for _, rule in ipairs(health) do
  local condition = found[rule[1]]
  if condition then
    return {status = rule[2], message = condition.message}
  end
end
return {status = "Progressing", message = "waiting for the operator"}
