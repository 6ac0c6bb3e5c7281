// The plain pages of identity: first administrator, and what links in mails lead to. No framework, no inline code.
"use strict";

const WORDS = {
  en: {
    other: "中文",
    setup_title: "Create the first administrator",
    setup_text: "This account can do everything. The link works once, for 30 minutes.",
    username: "User name",
    display_name: "Name",
    email: "E-mail",
    optional: "optional",
    password: "Password",
    password_hint: "At least 10 characters; a few unrelated words are good.",
    again: "Repeat the password",
    differs: "the two are not the same",
    create: "Create administrator",
    factor_title: "Add a second factor",
    factor_text: "Administrators sign in with a code from an authenticator app. Scan this with the app, then type its code.",
    by_hand: "Or type this key into the app:",
    code: "Code from the app",
    confirm: "Confirm",
    codes_title: "Keep these recovery codes",
    codes_text: "Each works once if you lose the app. They are not shown again.",
    copy: "Copy",
    copied: "Copied",
    download: "Download",
    kept: "I have kept them",
    setup_done: "The administrator is ready",
    setup_done_text: "You can sign in from now on. What to do next:",
    next_status: "See what runs: {0}",
    next_run: "Put a program behind the door: {0}",
    next_docs: "Read the API: {0}",
    verify_title: "Confirm your e-mail address",
    verify_text: "Press the button to confirm that this address is yours.",
    verify_done: "The address is confirmed",
    reset_title: "Choose a new password",
    reset_text: "All sessions end when it changes.",
    reset: "Change password",
    reset_done: "The password is changed",
    reset_done_text: "Sign in with the new one.",
    undo_title: "Undo the change",
    undo_text: "Press the button to get your old address back. All sessions end.",
    undo: "Undo",
    undo_done: "The change is undone",
    stranger_title: "This was not you?",
    stranger_text: "Press the button: that session ends, and a new password is needed.",
    stranger: "End the session",
    stranger_done: "The session has ended",
    invite_title: "Join",
    invite_text: "Choose how you sign in.",
    invite: "Create account",
    invite_done: "The account is ready",
    close_text: "You can close this page.",
    no_token: "This link is not complete",
    no_token_text: "Open it as it was printed or sent, with everything behind the #.",
    gone: "This link is used or expired",
    gone_text: "Ask for a new one. For the first administrator: restart portico, it prints a new link while there is no user.",
    offline: "The server does not answer. Nothing was changed; try again.",
    unknown: "There is nothing at this address",
  },
  zh: {
    other: "English",
    setup_title: "创建首位管理员",
    setup_text: "此账号拥有全部权限。链接只能使用一次，30 分钟内有效。",
    username: "用户名",
    display_name: "姓名",
    email: "邮箱",
    optional: "选填",
    password: "密码",
    password_hint: "至少 10 个字符，几个互不相关的词就很好。",
    again: "再次输入密码",
    differs: "两次输入不一致",
    create: "创建管理员",
    factor_title: "添加第二重验证",
    factor_text: "管理员登录需要验证器应用中的动态码。请用应用扫描，然后输入动态码。",
    by_hand: "或在应用中手动输入密钥：",
    code: "应用中的动态码",
    confirm: "确认",
    codes_title: "请保存恢复码",
    codes_text: "丢失应用时，每个恢复码可使用一次。之后不会再次显示。",
    copy: "复制",
    copied: "已复制",
    download: "下载",
    kept: "我已保存",
    setup_done: "管理员已就绪",
    setup_done_text: "现在可以登录了。接下来：",
    next_status: "查看运行状态：{0}",
    next_run: "把程序接入网关：{0}",
    next_docs: "阅读接口文档：{0}",
    verify_title: "确认邮箱地址",
    verify_text: "点击按钮，确认这是您的邮箱。",
    verify_done: "邮箱已确认",
    reset_title: "设置新密码",
    reset_text: "修改后，所有会话都将结束。",
    reset: "修改密码",
    reset_done: "密码已修改",
    reset_done_text: "请用新密码登录。",
    undo_title: "撤销更改",
    undo_text: "点击按钮恢复原来的地址，所有会话都将结束。",
    undo: "撤销",
    undo_done: "更改已撤销",
    stranger_title: "不是您本人登录？",
    stranger_text: "点击按钮：该会话立即结束，并需要设置新密码。",
    stranger: "结束会话",
    stranger_done: "会话已结束",
    invite_title: "加入",
    invite_text: "请设置登录方式。",
    invite: "创建账号",
    invite_done: "账号已就绪",
    close_text: "可以关闭此页面。",
    no_token: "链接不完整",
    no_token_text: "请按原样打开链接，包括 # 后面的全部内容。",
    gone: "链接已使用或已过期",
    gone_text: "请重新获取。首位管理员：重启 portico，在没有用户时会打印新链接。",
    offline: "服务器没有响应，未做任何更改，请重试。",
    unknown: "此地址没有内容",
  },
};

const main = document.getElementById("main");
const token = location.hash.slice(1);
// The token must not stay in the address bar, in the history or in what is shared.
if (token) history.replaceState(null, "", location.pathname);

let language = localStorage.getItem("portico.language") || (navigator.language.startsWith("zh") ? "zh" : "en");
let screen = null;

function word(name, ...values) {
  return values.reduce((text, value, i) => text.replace(`{${i}}`, value), WORDS[language][name]);
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function show(next) {
  screen = next;
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.getElementById("language").textContent = word("other");
  main.replaceChildren(...next());
  document.title = `${main.querySelector("h1")?.textContent ?? ""} · Portico`;
  (main.querySelector("input") ?? main.querySelector(".focus"))?.focus();
}

document.getElementById("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  localStorage.setItem("portico.language", language);
  const kept = [...main.querySelectorAll("input")].map((input) => [input.name, input.value]);
  show(screen);
  for (const [name, value] of kept) {
    const input = main.querySelector(`input[name="${name}"]`);
    if (input) input.value = value;
  }
});

async function call(path, body) {
  let answer;
  try {
    answer = await fetch(`/api/identity${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Accept-Language": language === "zh" ? "zh-CN" : "en" },
      body: JSON.stringify(body),
      credentials: "omit",
    });
  } catch {
    return { status: 0, body: {} };
  }
  const text = await answer.text();
  return { status: answer.status, body: text ? JSON.parse(text) : {} };
}

function field(name, label, { hint, type = "text", autocomplete, needed = true, code = false } = {}) {
  const id = `field-${name}`;
  const title = element("label", { for: id }, word(label));
  if (!needed) title.append(" ", element("small", {}, `(${word("optional")})`));
  const input = element("input", {
    id, name, type, autocomplete, required: needed, class: code ? "code" : undefined,
    inputmode: code ? "numeric" : undefined, maxlength: code ? 6 : 256, spellcheck: "false", autocapitalize: "none",
    "aria-describedby": `${id}-fault`,
  });
  const parts = [title, input];
  if (hint) parts.push(element("p", { class: "hint" }, word(hint)));
  parts.push(element("p", { class: "fault", id: `${id}-fault` }));
  return element("div", {}, ...parts);
}

function fault(form, name, message) {
  const input = form.elements[name];
  if (!input) return false;
  input.setAttribute("aria-invalid", "true");
  document.getElementById(`field-${name}-fault`).textContent = message;
  return true;
}

function notice(form, message) {
  const made = element("p", { class: "notice", role: "alert", tabindex: "-1" }, message);
  form.before(made);
  made.focus();
}

/** A form that shows faults at their fields and everything else above itself. */
function form(fields, button, send) {
  const submit = element("button", { class: "main", type: "submit" }, word(button));
  const made = element("form", { novalidate: true }, ...fields, submit);
  made.addEventListener("submit", async (event) => {
    event.preventDefault();
    main.querySelectorAll(".notice").forEach((old) => old.remove());
    made.querySelectorAll("[aria-invalid]").forEach((input) => input.removeAttribute("aria-invalid"));
    made.querySelectorAll(".fault").forEach((old) => { old.textContent = ""; });
    submit.disabled = true;
    try {
      await send(made, Object.fromEntries(new FormData(made)));
    } finally {
      submit.disabled = false;
      made.querySelector("[aria-invalid]")?.focus();
    }
  });
  return made;
}

/** True when the answer is good; otherwise it was shown. */
function good(made, answer) {
  if (answer.status >= 200 && answer.status < 300) return true;
  if (answer.status === 0) {
    notice(made, word("offline"));
    return false;
  }
  if (["identity.one_time_token_invalid", "identity.ticket_invalid", "identity.already_set_up"].includes(answer.body.code)) {
    show(() => message("gone", "gone_text"));
    return false;
  }
  const unseen = (answer.body.errors ?? []).filter((one) => !fault(made, one.field, one.message));
  if (unseen.length > 0 || !(answer.body.errors ?? []).length) {
    notice(made, unseen.map((one) => `${one.field}: ${one.message}`).join("; ") || answer.body.detail || answer.body.title || String(answer.status));
  }
  return false;
}

function message(title, text, ...more) {
  const parts = [element("h1", { class: "focus", tabindex: "-1" }, word(title))];
  if (text) parts.push(element("p", {}, word(text)));
  return [...parts, ...more];
}

function same(made, values) {
  if (values.password === values.again) return true;
  fault(made, "again", word("differs"));
  return false;
}

const PASSWORDS = () => [
  field("password", "password", { type: "password", autocomplete: "new-password", hint: "password_hint" }),
  field("again", "again", { type: "password", autocomplete: "new-password" }),
];

function device() {
  return { platform: "web", name: navigator.userAgent.slice(0, 60) };
}

function setup() {
  return [
    ...message("setup_title", "setup_text"),
    form([
      field("username", "username", { autocomplete: "username" }),
      field("display_name", "display_name", { autocomplete: "name", needed: false }),
      field("email", "email", { type: "email", autocomplete: "email", needed: false }),
      ...PASSWORDS(),
    ], "create", async (made, values) => {
      if (!same(made, values)) return;
      const { again, ...rest } = values;
      const wish = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== ""));
      const answer = await call("/setup", { token, ...wish, locale: language === "zh" ? "zh-CN" : "en", device: device() });
      if (good(made, answer)) await afterSetup(answer.body);
    }),
  ];
}

async function afterSetup(result) {
  if (result.status !== "enrol_required") {
    show(setupDone);
    return;
  }
  const begun = await call("/login/mfa/totp", { ticket: result.ticket });
  if (begun.status !== 200) {
    show(setupDone);
    return;
  }
  show(() => enrol(begun.body, result.ticket));
}

function enrol(begun, ticket) {
  return [
    ...message("factor_title", "factor_text"),
    element("div", { class: "qr" }, element("img", { alt: "", src: `data:image/svg+xml;utf8,${encodeURIComponent(begun.qr_svg)}` })),
    element("p", { class: "key" }, word("by_hand"), element("br"), element("code", {}, begun.secret)),
    form([field("code", "code", { autocomplete: "one-time-code", code: true })], "confirm", async (made, values) => {
      const answer = await call("/login/mfa/totp/confirm", { ticket, code: values.code });
      if (good(made, answer)) show(() => recovery(answer.body.recovery_codes));
    }),
  ];
}

function recovery(codes) {
  const text = codes.join("\n") + "\n";
  const copy = element("button", {
    class: "plain", type: "button",
    onclick: async () => {
      await navigator.clipboard.writeText(text);
      copy.textContent = word("copied");
    },
  }, word("copy"));
  const file = element("a", { href: `data:text/plain;charset=utf-8,${encodeURIComponent(text)}`, download: "portico-recovery-codes.txt" }, word("download"));
  return [
    ...message("codes_title", "codes_text"),
    element("ul", { class: "codes" }, ...codes.map((code) => element("li", {}, code))),
    element("p", { class: "row" }, copy, file),
    form([], "kept", async () => show(setupDone)),
  ];
}

function setupDone() {
  const item = (name, command) => {
    const [before, after] = word(name).split("{0}");
    return element("li", {}, before, command, after ?? "");
  };
  return [
    element("h1", { class: "done focus", tabindex: "-1" }, word("setup_done")),
    element("p", {}, word("setup_done_text")),
    element("ul", { class: "next" },
      item("next_status", element("code", {}, "portico status")),
      item("next_run", element("code", {}, "portico run --name hello --public -- python3 -m http.server '{port}'")),
      item("next_docs", element("a", { href: "/docs" }, "/docs"))),
  ];
}

/** A page that asks for one click before a link takes effect, so that scanners of mails change nothing. */
function click(name, button, path, done, text = "close_text") {
  return () => [
    ...message(`${name}_title`, `${name}_text`),
    form([], button, async (made) => {
      if (good(made, await call(path, { token }))) show(() => message(done, text));
    }),
  ];
}

function reset() {
  return [
    ...message("reset_title", "reset_text"),
    form(PASSWORDS(), "reset", async (made, values) => {
      if (!same(made, values)) return;
      const answer = await call("/password/reset/confirm", { token, password: values.password });
      if (good(made, answer)) show(() => message("reset_done", "reset_done_text"));
    }),
  ];
}

function invitation() {
  return [
    ...message("invite_title", "invite_text"),
    form([field("username", "username", { autocomplete: "username" }), ...PASSWORDS()], "invite", async (made, values) => {
      if (!same(made, values)) return;
      const answer = await call("/register", {
        method: "username", identifier: values.username, password: values.password, invitation: token, device: device(),
      });
      if (good(made, answer)) show(() => message("invite_done", "close_text"));
    }),
  ];
}

const PAGES = {
  "/auth/setup": setup,
  "/auth/verify": click("verify", "confirm", "/email/verify", "verify_done"),
  "/auth/reset": reset,
  "/auth/undo": click("undo", "undo", "/undo", "undo_done"),
  "/auth/stranger": click("stranger", "stranger", "/stranger", "stranger_done"),
  "/auth/invitation": invitation,
};

const page = PAGES[location.pathname];
if (!page) show(() => message("unknown"));
else if (!token) show(() => message("no_token", "no_token_text"));
else show(page);
