"""Every word that the console itself says, English and Chinese side by side, so that neither can lack one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

_WORDS: dict[str, tuple[str, str]] = {
    # The frame.
    "title": ("Customer console", "客户控制台"),
    "skip": ("Skip to the timeline", "跳到时间线"),
    "language": ("Language", "语言"),
    "search": ("Customer or decision", "客户或决策"),
    "search_hint": ("Customer id or decision id", "客户编号或决策编号"),
    "find": ("Find", "查找"),
    "welcome": ("Whom are you looking for?", "您要找哪位客户？"),
    "welcome_more": (
        "Enter a customer id to see every message, visit and decision of all channels in one order. "
        "A decision id leads to the decision and its customer.",
        "输入客户编号，即可按时间顺序查看所有渠道的消息、来访和决策。输入决策编号，则直接打开该决策及其客户。",
    ),
    "zone": ("Times in {zone}", "时间为 {zone} 时区"),
    # The customer.
    "customer": ("Customer", "客户"),
    "consent": ("Consent", "联系许可"),
    "channel": ("Channel", "渠道"),
    "allowed": ("allowed", "允许"),
    "refused": ("refused", "拒绝"),
    "holds": ("Holds", "持有产品"),
    "holds_nothing": ("no product that we know of", "没有已知的产品"),
    "holds_unknown": ("not known", "未知"),
    "attributes": ("Attributes", "客户属性"),
    "yes": ("yes", "是"),
    "no": ("no", "否"),
    "attributes_none": ("nothing known", "暂无信息"),
    "more": ("{count} more", "其余 {count} 项"),
    "not_known": ("Nothing is known of this customer", "没有这位客户的资料"),
    "not_known_more": (
        "No table and no event names {id}. Ids are case-sensitive; check for a leading zero or a missing letter.",
        "没有任何表或事件提到 {id}。编号区分大小写，请检查开头的零或遗漏的字符。",
    ),
    "events_only": (
        "Known from events alone: no customer record, so no contact is decided.",
        "仅有事件记录，没有客户资料，因此不会决定联系。",
    ),
    # The timeline.
    "timeline": ("Timeline", "时间线"),
    "no_events": ("No events yet.", "还没有事件。"),
    "older": ("Older events", "更早的事件"),
    "newest": ("Back to the newest", "回到最新"),
    "older_shown": ("Older events; new ones do not appear here.", "这里是更早的事件，不会显示新事件。"),
    "live": ("Live", "实时"),
    "live_lost": ("Connection lost, trying again", "连接中断，正在重试"),
    "live_new": ("Live · new events: {count}", "实时 · 新事件 {count} 条"),
    "by_reload": ("Reload to see new events", "刷新页面查看新事件"),
    "downlink": ("to the customer", "发给客户"),
    "uplink": ("from the customer", "来自客户"),
    "decision_mark": ("decision", "决策"),
    "why": ("Why?", "为什么？"),
    "of_decision": ("its decision", "所属决策"),
    "content": ("content {id}", "内容 {id}"),
    "value": ("value {amount}", "价值 {amount}"),
    "chance": ("chosen with probability {percent}", "选中概率 {percent}"),
    "all_channels": ("All channels", "所有渠道"),
    "no_contact": ("No contact", "不联系"),
    "kind_decided": ("Decision", "决策"),
    "kind_sent": ("sent", "已发送"),
    "kind_delivered": ("delivered", "已送达"),
    "kind_failed": ("not delivered", "未送达"),
    "kind_opened": ("opened", "已打开"),
    "kind_clicked": ("clicked", "已点击"),
    "kind_replied": ("replied", "已回复"),
    "kind_visited": ("visit", "来访"),
    "kind_called": ("call", "来电"),
    "kind_converted": ("taken up", "已办理"),
    "kind_opted_out": ("opted out", "拒绝联系"),
    "kind_opted_in": ("opted in", "允许联系"),
    "kind_complained": ("complained", "投诉"),
    "purpose_marketing": ("marketing", "营销"),
    "purpose_service": ("service", "服务"),
    "purpose_mandatory": ("mandatory", "法定"),
    # The decision.
    "decision": ("Decision", "决策"),
    "latest": ("Latest decision", "最近一次决策"),
    "no_decision": ("No decision to show", "没有可显示的决策"),
    "no_decision_more": (
        "Decisions made here appear with their candidates and reasons. Imported ones are on the timeline only.",
        "在本系统做出的决策会显示候选方案和理由；导入的决策只出现在时间线上。",
    ),
    "decision_unknown": ("There is no decision {id}", "没有决策 {id}"),
    "decision_unknown_more": (
        "The ledger has no record with this id for this customer. It may have been decided elsewhere.",
        "账本中没有这位客户的这条记录，它可能是在别处做出的。",
    ),
    "decided_at": ("Decided {time}", "决策时间 {time}"),
    "to_send": ("to be sent {time}", "发送时间 {time}"),
    "about": ("{product} by {channel}", "{product} · {channel}"),
    "message_on": ("Message by {channel}", "{channel}消息"),
    "no_text": (
        "The catalogue has no contents: the routing service chooses the words.",
        "产品目录没有内容模板，由发送系统决定文字。",
    ),
    "then": ("If it has not arrived by {time}", "若 {time} 前未送达"),
    "reasons": ("Why", "理由"),
    "degraded": ("Rests on less than it should", "依据不完整"),
    "likely": ("How likely it was", "选中的可能性"),
    "likely_certain": ("Certain: nothing else could have been chosen.", "必然：没有其他可选方案。"),
    "likely_times": (
        "Made 1,000 times over, this decision would take this action about {times} times.",
        "同样的决策重复 1,000 次，大约有 {times} 次会选这个方案。",
    ),
    "likely_nearly": (
        "Made 1,000 times over, this decision would nearly always take this action.",
        "同样的决策重复 1,000 次，几乎每次都会选这个方案。",
    ),
    "likely_rare": (
        "Made again and again, this decision would take this action about once in {times} times.",
        "同样的决策反复做，大约每 {times} 次会选一次这个方案。",
    ),
    "likely_best": (
        "It is the action with the highest expected value; the rest is left to chance, to measure effects.",
        "这是期望价值最高的方案；其余部分留给随机，以便衡量效果。",
    ),
    "likely_explored": (
        "It was drawn to learn from: {best} was expected to be worth {amount} more.",
        "这是为了学习而抽中的：{best}的期望价值高出 {amount}。",
    ),
    "likely_logged": (
        "This probability is kept with the decision, so that policies can be compared fairly afterwards.",
        "该概率随决策一并保存，以便日后公平比较不同策略。",
    ),
    "likely_in_arm": (
        "Within the arm that decided, it was {percent}.",
        "在做出决策的分组之内，概率为 {percent}。",
    ),
    "arm": ("Arm", "实验分组"),
    "arm_agent": ("agent: models and policy decide", "智能决策：由模型和策略决定"),
    "arm_random": ("random: every possible action alike", "随机：所有可行方案机会相同"),
    "arm_business_as_usual": (
        "business as usual: the most usual product by the cheapest channel",
        "照常业务：最常办理的产品，最便宜的渠道",
    ),
    "arm_holdout": ("holdout: no marketing contact", "对照组：不做营销联系"),
    "candidates": ("What was possible", "可行方案"),
    "action": ("Action", "方案"),
    "expected": ("Expected value", "期望价值"),
    "probability": ("Probability", "概率"),
    "chosen": ("chosen", "选中"),
    "best": ("highest value", "价值最高"),
    "removed": ("What was ruled out", "被排除的"),
    "removed_none": ("Nothing was ruled out.", "没有被排除的。"),
    "subject_customer": ("customer", "客户"),
    "subject_product": ("product", "产品"),
    "subject_channel": ("channel", "渠道"),
    "subject_content": ("content", "内容"),
    "subject_action": ("action", "方案"),
    "change": ("What would have changed it", "什么会改变决策"),
    "change_value": ("{action}: if worth {amount} more", "{action}：若价值再高 {amount}"),
    "change_exploration": (
        "{action}: had nothing been left to chance, by {amount}",
        "{action}：若不留给随机（价值高 {amount}）",
    ),
    "change_rule": (
        "{action}: without the rule {rule}, by {amount}",
        "{action}：若没有规则 {rule}（价值高 {amount}）",
    ),
    "known": ("What was known", "当时所知"),
    "age": ("{age} old", "{age}前"),
    "age_none": ("nothing known", "未知"),
    "age_later": ("newer than the question, so not used", "晚于提问时间，未使用"),
    "contacts": ("contacts that limits counted", "计入限制的联系次数"),
    "responses": ("negative responses", "负面反应次数"),
    "seconds": ("{n} s", "{n} 秒"),
    "minutes": ("{n} min", "{n} 分钟"),
    "hours": ("{n} h", "{n} 小时"),
    "days": ("{n} days", "{n} 天"),
    "versions": ("Versions", "版本"),
    "version_policy": ("policy", "策略"),
    "version_features": ("features", "特征"),
    "version_catalog": ("catalogue", "产品目录"),
    "version_rules": ("rules", "规则"),
    "replay": ("Decide again and compare", "重新决策并比较"),
    "replay_equal": (
        "Decided again from what was known then: the same, bit for bit.",
        "用当时的数据重新决策：结果逐位相同。",
    ),
    "replay_differs": ("Decided again, it came out otherwise: {names}", "重新决策的结果不同：{names}"),
    "replay_impossible": ("Cannot be decided again: {reason}", "无法重新决策：{reason}"),
    "raw": ("The record as JSON", "JSON 记录"),
    "take_ups": ("{n} take-ups", "{n} 次办理"),
    # Errors.
    "error_not_ready": ("Not ready yet", "尚未就绪"),
    "error_not_ready_more": (
        "Features or the ledger are still being opened. Try again in a moment.",
        "特征或账本仍在打开，请稍后再试。",
    ),
    "error_unavailable": ("Cannot be read now", "暂时无法读取"),
    "error_unavailable_more": (
        "The ledger or the features do not answer. Nothing is lost; try again in a moment.",
        "账本或特征没有响应。数据没有丢失，请稍后再试。",
    ),
    "error_overloaded": ("Too many requests wait", "请求过多"),
    "error_overloaded_more": ("Try again in a moment.", "请稍后再试。"),
    "error_wrong": ("This address asks for something impossible", "地址有误"),
    "error_wrong_more": (
        "A customer id has 1 to 256 characters without control characters, and the place in the timeline comes from a "
        "link of this page. Search again.",
        "客户编号为 1 至 256 个字符，不含控制字符；时间线位置来自本页链接。请重新查找。",
    ),
    "error_ours": ("An error of ours", "系统错误"),
    "error_ours_more": (
        "It was logged. Try again, or look at another customer.",
        "错误已记录。请重试，或查看其他客户。",
    ),
}


class Words:
    """The words of one language: `words("older")`, `words("zone", zone="UTC")`; KeyError where there is none."""

    def __init__(self, language: Language) -> None:
        self.language: Language = language
        self._column = LANGUAGES.index(language)

    def __call__(self, key: str, **values: object) -> str:
        """The words under `key`, with `values` in their places."""
        return _WORDS[key][self._column].format(**values)

    def __contains__(self, key: str) -> bool:
        return key in _WORDS


def pairs() -> Sequence[tuple[str, str]]:
    """Every text in both languages."""
    return tuple(_WORDS.values())


def choose(asked: str | None, accepted: str) -> Language:
    """The language asked for; else the first of ours in an Accept-Language header; else English."""
    wanted = [asked or "", *(part.split(";")[0].strip() for part in accepted.split(","))]
    for tag in wanted:
        for language in LANGUAGES:
            if tag.lower().split("-")[0] == language:
                return language
    return "en"
