import { api, take } from "../../api/client";
import type { Role, User } from "../../api/types";
import { Act } from "../../parts/Act";
import { Card } from "../../parts/Card";
import { Answer, Empty } from "../../parts/feedback";
import { Tag } from "../../parts/Tag";
import { Ago } from "../../parts/Time";
import { usePages } from "../../parts/usePages";
import { useSession } from "../../session";
import { FormDialog, ROLES, RoleField } from "./FormDialog";

const TOUCHES = ["users"];

export function Users() {
  const users = usePages<User>({
    queryKey: ["users"],
    ask: (cursor) => take(api.GET("/api/v1/users", { params: { query: { cursor } } })),
  });
  return (
    <Card title="Users" aside={<NewUser />}>
      <Answer of={users}>
        {(rows) =>
          rows.length === 0 ? (
            <Empty what="Nobody but the administrator of this server">A user gets a role: to look, to operate, or to administer.</Empty>
          ) : (
            <div className="scroll">
              <table>
                <thead>
                  <tr>
                    <th scope="col">Name</th>
                    <th scope="col">Role</th>
                    <th scope="col">State</th>
                    <th scope="col">Last here</th>
                    <th scope="col">
                      <span className="hidden-visually">Changes</span>
                    </th>
                  </tr>
                </thead>
                <tbody>
                  {rows.map((user) => (
                    <OneUser key={user.name} user={user} />
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

function OneUser({ user }: { user: User }) {
  const { me } = useSession();
  const path = { user: user.name };
  const change = (body: { disabled?: boolean }) => () => take(api.PATCH("/api/v1/users/{user}", { params: { path }, body }));
  return (
    <tr>
      <th scope="row">{user.name}</th>
      <td>{user.role}</td>
      <td>{user.disabled ? <Tag tone="bad">disabled</Tag> : <Tag tone="ok">may log in</Tag>}</td>
      <td className="soft">
        <Ago at={user.last_login_at} />
      </td>
      <td>
        <div className="row">
          <ChangeUser user={user} />
          <Act role="admin" touches={TOUCHES} disabled={user.name === me?.user} act={change({ disabled: !user.disabled })}>
            {user.disabled ? "Enable" : "Disable"}
          </Act>
          <Act
            role="admin"
            tone="danger"
            touches={TOUCHES}
            disabled={user.name === me?.user}
            act={() => take(api.DELETE("/api/v1/users/{user}", { params: { path } }))}
            question={`${user.name} is logged out everywhere, and the tokens of ${user.name} end.`}
          >
            Remove
          </Act>
        </div>
      </td>
    </tr>
  );
}

function asRole(value: FormDataEntryValue | null): Role {
  return ROLES.find((role) => role === value) ?? "viewer";
}

function NewUser() {
  return (
    <FormDialog
      open="New user"
      title="New user"
      submit="Create"
      touches={TOUCHES}
      act={(form) =>
        take(
          api.POST("/api/v1/users", {
            body: {
              name: String(form.get("name") ?? "").trim(),
              role: asRole(form.get("role")),
              password: String(form.get("password") ?? ""),
            },
          }),
        )
      }
    >
      <label>
        Name
        <input name="name" required autoComplete="off" />
      </label>
      <RoleField />
      <label>
        Password
        <input name="password" type="password" required autoComplete="new-password" />
      </label>
    </FormDialog>
  );
}

function ChangeUser({ user }: { user: User }) {
  return (
    <FormDialog
      open="Change"
      title={`Change ${user.name}`}
      submit="Save"
      touches={TOUCHES}
      act={(form) => {
        const password = String(form.get("password") ?? "");
        return take(
          api.PATCH("/api/v1/users/{user}", {
            params: { path: { user: user.name } },
            body: { role: asRole(form.get("role")), ...(password !== "" && { password }) },
          }),
        );
      }}
    >
      <RoleField chosen={user.role} />
      <label>
        New password, if it shall be another
        <input name="password" type="password" autoComplete="new-password" />
      </label>
    </FormDialog>
  );
}
