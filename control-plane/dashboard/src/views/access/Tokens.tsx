import { useState } from "react";
import { api, take } from "../../api/client";
import type { ApiToken, Role } from "../../api/types";
import { Act } from "../../parts/Act";
import { Card } from "../../parts/Card";
import { Answer, Empty } from "../../parts/feedback";
import { Ago, At } from "../../parts/Time";
import { usePages } from "../../parts/usePages";
import { FormDialog, ROLES, RoleField } from "./FormDialog";

const TOUCHES = ["tokens"];
const DAYS_DEFAULT = 90;

export function Tokens() {
  const [secret, setSecret] = useState<string>();
  const tokens = usePages<ApiToken>({
    queryKey: ["tokens"],
    ask: (cursor) => take(api.GET("/api/v1/tokens", { params: { query: { cursor } } })),
  });
  return (
    <Card title="API tokens" aside={<NewToken onSecret={setSecret} />}>
      {secret !== undefined && <Secret secret={secret} forget={() => setSecret(undefined)} />}
      <Answer of={tokens}>
        {(rows) =>
          rows.length === 0 ? (
            <Empty what="There is no token">A program shows one as a bearer instead of logging in.</Empty>
          ) : (
            <div className="scroll">
              <table>
                <thead>
                  <tr>
                    <th scope="col">Name</th>
                    <th scope="col">User</th>
                    <th scope="col">Role</th>
                    <th scope="col">Ends</th>
                    <th scope="col">Last used</th>
                    <th scope="col">
                      <span className="hidden-visually">Changes</span>
                    </th>
                  </tr>
                </thead>
                <tbody>
                  {rows.map((token) => (
                    <tr key={token.id}>
                      <th scope="row">{token.name}</th>
                      <td>{token.user}</td>
                      <td>{token.role}</td>
                      <td>
                        <At at={token.expires_at} />
                      </td>
                      <td className="soft">
                        <Ago at={token.used_at} />
                      </td>
                      <td>
                        <Act
                          role="admin"
                          tone="danger"
                          touches={TOUCHES}
                          act={() => take(api.DELETE("/api/v1/tokens/{id}", { params: { path: { id: token.id } } }))}
                          question="Whatever uses it is refused from now on."
                        >
                          Remove
                        </Act>
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          )
        }
      </Answer>
    </Card>
  );
}

function Secret({ secret, forget }: { secret: string; forget: () => void }) {
  return (
    <div className="note stack" role="status">
      <b>Keep it now: it is not shown again.</b>
      <div className="secret">
        <code>{secret}</code>
        <button type="button" onClick={() => void navigator.clipboard.writeText(secret)}>
          Copy
        </button>
        <button type="button" onClick={forget}>
          Done
        </button>
      </div>
    </div>
  );
}

function NewToken({ onSecret }: { onSecret: (secret: string) => void }) {
  return (
    <FormDialog
      open="New token"
      title="New token"
      submit="Create"
      touches={TOUCHES}
      act={(form) => {
        const role: Role = ROLES.find((one) => one === form.get("role")) ?? "viewer";
        return take(
          api.POST("/api/v1/tokens", {
            body: { name: String(form.get("name") ?? "").trim(), role, days: Number(form.get("days") ?? DAYS_DEFAULT) },
          }),
        );
      }}
      onDone={(given) => onSecret(given.secret)}
    >
      <label>
        Name: what it is for
        <input name="name" required autoComplete="off" />
      </label>
      <RoleField />
      <label>
        Days until it ends
        <input name="days" type="number" min={1} max={3650} defaultValue={DAYS_DEFAULT} required />
      </label>
    </FormDialog>
  );
}
