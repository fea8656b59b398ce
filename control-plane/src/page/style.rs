//! The page's style sheet; light and dark follow the viewer's setting.

pub(super) const SHEET: &str = r"
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b2430;--soft:#667085;--line:#e3e7ee;--ok:#16834a;--bad:#c0362c;--busy:#2563c9;--idle:#98a2b3}
@media(prefers-color-scheme:dark){:root{--bg:#0f141b;--card:#171e28;--ink:#e6eaf0;--soft:#93a0b4;--line:#273142;--ok:#4cc38a;--bad:#f2736a;--busy:#6ea8fe;--idle:#5b6779}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1180px;margin:0 auto;padding:24px}h1{font-size:20px;margin:0}h2{font-size:14px;margin:0 0 12px;color:var(--soft);font-weight:600;text-transform:uppercase;letter-spacing:.04em}
header{display:flex;justify-content:space-between;align-items:baseline;margin-bottom:20px;flex-wrap:wrap;gap:8px}small,.soft{color:var(--soft)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin-bottom:16px}
section,.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px}section{margin-bottom:16px;overflow-x:auto}
.card b{display:block;font-size:26px;font-weight:650;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:6px 10px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}th{color:var(--soft);font-weight:500;font-size:13px}tr:last-child td{border-bottom:0}
.tag{display:inline-block;border-radius:99px;padding:0 9px;font-size:12px;line-height:20px;border:1px solid currentColor;white-space:nowrap}.ok{color:var(--ok)}.bad{color:var(--bad)}.busy{color:var(--busy)}.idle{color:var(--idle)}
.bar{display:flex;height:10px;border-radius:5px;overflow:hidden;background:var(--line);min-width:140px}.bar i{display:block;height:100%}.bar .ok{background:var(--ok)}.bar .bad{background:var(--bad)}.bar .busy{background:var(--busy)}.bar .idle{background:var(--idle)}
.wave{display:grid;grid-template-columns:70px 1fr 90px;gap:10px;align-items:center;margin:4px 0}.roll{padding:10px 0;border-bottom:1px solid var(--line)}.roll:last-child{border:0}
pre{background:var(--bg);border-radius:8px;padding:12px;overflow-x:auto;font-size:12px;line-height:1.35}
form{max-width:420px;margin:18vh auto;padding:24px;background:var(--card);border:1px solid var(--line);border-radius:10px}input{width:100%;padding:9px;margin:10px 0;border:1px solid var(--line);border-radius:6px;background:var(--bg);color:var(--ink);font:inherit}button{padding:9px 18px;border:0;border-radius:6px;background:var(--busy);color:#fff;font:inherit;cursor:pointer}
";
