"""The reasons of decisions in Chinese: each sentence that a rule can give, recognised by its form.

Records keep reasons in English, as machines and logs read them. What a bank or a later version adds is shown as it is.
"""

from __future__ import annotations

import re

from serving.console.words import Language

_N = r"[-+0-9.e]+"
_CHINESE: tuple[tuple[str, str], ...] = (
    # serving.eligibility, serving.decide
    (r"not in the request's eligible list", "不在请求的可选产品之内"),
    (r"the customer holds it, and a holder is not offered it again", "客户已持有，不再推荐"),
    (r"the customer took it up; holdings do not tell of it yet", "客户已办理，持有情况尚未更新"),
    (r"not in the catalogue", "不在产品目录中"),
    (r"the customer comes by it; we cannot send on it", "客户经由此渠道来访，不能用它发送"),
    (r"not in the request's channels", "不在请求的可用渠道之内"),
    (r"the customer opted out of it", "客户已拒绝此渠道"),
    (r"its holdings are newer than as_of", "持有情况晚于提问时间"),
    (r"what the customer held then is not known", "当时的持有情况未知"),
    (r"the customer holds none of (?P<a>.+)", "客户未持有 {a} 中的任何一项"),
    (r"the customer holds (?P<a>.+)", "客户持有 {a}"),
    (r"(?P<a>.+) is not known, so neither is affordability", "{a} 未知，无法判断是否负担得起"),
    (r"(?P<a>.+) is not known", "{a} 未知"),
    (r"(?P<a>.+) has no amount", "{a} 没有数值"),
    (r"(?P<a>.+) is below (?P<b>.+)", "{a} 低于 {b}"),
    (r"(?P<a>.+) is above (?P<b>.+)", "{a} 高于 {b}"),
    (r"(?P<a>.+) is not one that it is for", "不面向此类 {a} 的客户"),
    (r"(?P<a>.+) is not there", "没有 {a}"),
    (r"it applies from (?P<a>.+)", "自 {a} 起适用"),
    (r"it applied until (?P<a>.+)", "适用期至 {a} 为止"),
    (r"it does not apply on this day of the week", "这一天不适用"),
    (r"nothing is known of this customer: ranked cold", "没有这位客户的资料，按总体排序"),
    # serving.contact_policy, serving.suitability, serving.caps
    (
        r"(?P<a>\d+) marketing contacts (?P<w>.*)in this (?P<c>\w+); (?P<b>\d+) are allowed",
        "本{c}内{w}已有 {a} 次营销联系，上限 {b} 次",
    ),
    (
        r"(?P<a>\d+) marketing contacts (?P<w>.*)in (?P<c>.+) days; (?P<b>\d+) are allowed",
        "{c} 天内{w}已有 {a} 次营销联系，上限 {b} 次",
    ),
    (
        r"(?P<a>\d+) negative responses (?P<w>.*)were given; silent until (?P<b>.+)",
        "{w}已有 {a} 次负面反应，静默至 {b}",
    ),
    (r"(?P<a>.+) is more than (?P<b>.+) of the customer's (?P<c>.+)", "{a} 超过客户 {c} 的 {b} 倍"),
    (r"the customer complained within (?P<a>.+) days", "客户在 {a} 天内投诉过"),
    (r"other decisions kept taking the last contact that this limit allows", "此上限的最后一次联系一直被其他决策占用"),
    (r"the customer's consent kept changing while this was decided", "决策期间客户的联系许可一直在变化"),
    # serving.candidates, serving.explain
    (r"no content for this product on this channel", "此产品在此渠道没有内容"),
    (r"its score is not a finite probability", "评分不是有效概率"),
    (
        r"nothing is known of this customer at as_of, so neither is consent",
        "提问时没有这位客户的资料，也就没有联系许可",
    ),
    (
        r"the newest consent record is later than as_of; what it was then is not kept",
        "最新的联系许可晚于提问时间，当时的状态没有保留",
    ),
    (
        r"no outbound channel is allowed, consented to and in the catalogue(; see removed)?",
        "没有允许且经许可的外发渠道",
    ),
    (r"every product is held, not eligible or not in the catalogue", "所有产品都已持有、不适用或不在目录中"),
    (r"no content could be rendered, or no score was usable", "没有可用的内容或评分"),
    (
        r"every product left is in a control group or not yet let out to this customer",
        "余下的产品都在对照组中，或尚未向这位客户开放",
    ),
    (rf"expected value (?P<a>{_N}) (?P<u>.+); the best action has (?P<b>{_N})", "期望价值 {a} {u}；最佳方案为 {b}"),
    (
        rf"expected value (?P<a>{_N}) (?P<u>.+), the highest of (?P<b>\d+) actions",
        "期望价值 {a} {u}，在 {b} 个方案中最高",
    ),
    (r"no action is expected to be worth more than its cost", "没有任何方案的期望价值高于成本"),
    # serving.arms
    (
        r"the random arm decides for this customer in this period: every feasible action alike",
        "本期由随机组为这位客户决策：所有可行方案机会相同",
    ),
    (r"business as usual decides for this customer in this period", "本期按照常业务为这位客户决策"),
    (r"the customer is in the holdout of this period: no marketing contact", "客户本期在对照组中：不做营销联系"),
    (r"the customer is in this product's control group of this period", "客户本期在该产品的对照组中"),
    (r"a new product, offered to (?P<a>.+) of customers so far", "新产品，目前向 {a} 的客户开放"),
    # What a decision lacked: serving.opening, serving.scoring, serving.explain
    (r"no usable (?P<a>.+) of send-time: all hours are taken alike", "send-time 没有可用的 {a}：各时段一视同仁"),
    (r"no usable (?P<a>.+) of (?P<b>.+)", "{b} 没有可用的 {a}"),
    (r"no usable (?P<a>\w+)", "没有可用的 {a}"),
    (r"(?P<a>.+) of (?P<b>.+) failed \((?P<u>.+)\)", "{b} 的 {a} 出错（{u}）"),
    (r"(?P<a>.+) of (?P<b>.+) gave no usable score", "{b} 的 {a} 没有给出可用评分"),
    (r"(?P<a>.+) uses the static rule: all candidates alike", "{a} 使用静态规则：所有候选一视同仁"),
    (r"newer than as_of, so unknown: (?P<a>.+)", "晚于提问时间，因此未知：{a}"),
    (
        r"the customer's time_zone is not one of the tz database, (?P<a>.+) is used",
        "客户的时区不在时区数据库中，改用 {a}",
    ),
    # serving.route
    (r"the catalogue has no content of this id", "目录中没有此编号的内容"),
    (r"the content is about another product than the message", "内容所涉产品与消息不同"),
    (r"a marketing message is about a product, whose limits it keeps", "营销消息必须关于某个产品，并遵守其限制"),
    (r"the catalogue has no product of this id", "目录中没有此编号的产品"),
    (rf"value (?P<a>{_N}); the best way has (?P<b>{_N})", "价值 {a}；最佳途径为 {b}"),
    (rf"value (?P<a>{_N}), the highest of (?P<b>\d+) ways", "价值 {a}，在 {b} 条途径中最高"),
    (r"the product may not be offered to this customer; see removed", "该产品不可推荐给这位客户"),
    (r"no channel that may be used can carry the message; see removed", "没有可用渠道能承载此消息"),
)
_COMPILED = tuple((re.compile(english, re.DOTALL), chinese) for english, chinese in _CHINESE)
_CALENDAR = {"day": "日", "week": "周", "month": "月", "quarter": "季度", "year": "年"}
_SCOPES = {"of channel ": "渠道 ", "of product ": "产品 ", "of group ": "产品组 "}


def translated(sentence: str, language: Language) -> str | None:
    """The sentence in `language`; None where only the English is known."""
    if language == "en":
        return sentence
    for english, chinese in _COMPILED:
        found = english.fullmatch(sentence)
        if found:
            return chinese.format(**{name: _part(name, text or "") for name, text in found.groupdict().items()})
    return None


def _part(name: str, text: str) -> str:
    """What stands in a place of a sentence: c a calendar period, w what a limit is of, the rest as it is."""
    if name == "c":
        return _CALENDAR.get(text, text)
    if name == "w":
        for english, chinese in _SCOPES.items():
            text = text.replace(english, chinese)
    return text
