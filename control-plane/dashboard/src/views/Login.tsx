import { useEffect, useState, type FormEvent } from "react";
import { ProblemBox } from "../parts/feedback";
import { useSession } from "../session";

export function Login() {
  const { login } = useSession();
  const [error, setError] = useState<unknown>();
  const [isAsking, setAsking] = useState(false);
  useEffect(() => {
    document.title = "Log in – Edgewright";
  }, []);

  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    setAsking(true);
    setError(undefined);
    login(String(form.get("user") ?? "").trim(), String(form.get("password") ?? ""))
      .catch(setError)
      .finally(() => setAsking(false));
  };
  return (
    <main className="login">
      <form className="card" onSubmit={submit}>
        <span className="brand">
          <img src="/favicon.svg" alt="" />
          <h1>Edgewright</h1>
        </span>
        <label>
          User
          <input name="user" autoComplete="username" autoFocus required />
        </label>
        <label>
          Password
          <input name="password" type="password" autoComplete="current-password" required />
        </label>
        {error !== undefined && <ProblemBox error={error} />}
        <button className="primary" type="submit" disabled={isAsking}>
          Log in
        </button>
        <p className="soft small">
          On a new server: the user <code>admin</code>, with the token in <code>context.json</code> of the server's data folder as the
          password.
        </p>
      </form>
    </main>
  );
}
