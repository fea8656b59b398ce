import { Head } from "../parts/Head";
import { Empty } from "../parts/feedback";
import { useMay } from "../session";
import { Tokens } from "./access/Tokens";
import { Users } from "./access/Users";

export default function Access() {
  const isAdmin = useMay("admin");
  return (
    <>
      <Head title="Users and tokens" />
      {isAdmin ? (
        <>
          <Users />
          <Tokens />
        </>
      ) : (
        <Empty what="This needs the role admin">Ask an administrator for what you need here.</Empty>
      )}
    </>
  );
}
