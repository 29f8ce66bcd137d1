"""Every wording Steward sends to an inbox, in one table, to be approved once (NTC-10).

A wording is filled in with ids, numbers and roles only. Nothing that a person wrote and no name or telephone gets in, so
an inbox holds no personal data and may be shown on a lock screen.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass

PARAMETERS = frozenset({"number", "estate", "case", "clock", "limit", "role", "count"})
EMPHASIS = "【紧急】"  # REP-08: urgent ones with special emphasis


@dataclass(frozen=True, slots=True)
class Template:
    """One approved wording. Raises ValueError when it asks for a parameter that may not be given."""

    title: str
    body: str

    def __post_init__(self) -> None:
        asked = {name for text in (self.title, self.body) for _, name, _, _ in string.Formatter().parse(text) if name is not None}
        if foreign := asked - PARAMETERS:
            raise ValueError(f"no wording may hold {', '.join(sorted(foreign))}")

    def text(self, parameters: Mapping[str, str | int], *, urgent: bool, skipped: tuple[str, ...] = ()) -> tuple[str, str]:
        """(title, body). `skipped`: roles nobody holds that should have been told first."""
        title = (EMPHASIS if urgent else "") + self.title.format_map(parameters)
        body = self.body.format_map(parameters)
        if skipped:
            body += f"（{'、'.join(role_name(role) for role in skipped)}岗位空缺，已越级通知您。）"
        return title, body


# Kind (steward.notifications.v1.Message.Kind) → wording.
TEMPLATES = {
    # a repair, to the staff concerned
    "REPAIR_REPORTED": Template("新报修 {number} 待安排", "{estate} 收到报修 {number}，请尽快安排人员领取工单。"),
    "REPAIR_CALLED": Template("报修 {number} 待抢修", "{estate} 发生紧急报修 {number}，请立即领取工单并赶赴现场。"),
    "REPAIR_DISPATCHED": Template("报修 {number} 已派给您", "{estate} 报修 {number} 已派给您，请查看预约时间与注意事项，尽快领取。"),
    "REPAIR_RETURNED": Template("报修 {number} 已被退回", "{estate} 报修 {number} 被维修人员退回，请重新安排。"),
    "REPAIR_UNCOLLECTED": Template("报修 {number} 未及时领取", "{estate} 报修 {number} 未在{limit}内被领取，请再次通知并督促维修人员。"),
    "REPAIR_INSPECTION_DUE": Template("公共区域报修 {number} 待验收", "{estate} 公共区域报修 {number} 已完工，请安排责任人验收。"),
    "REPAIR_REJECTED": Template("报修 {number} 需要返工", "{estate} 报修 {number} 验收未通过（第 {count} 次），请返工直至客户满意。"),
    "REPAIR_ACCEPTED": Template("报修 {number} 已通过验收", "您处理的报修 {number} 已通过验收，请将工单交回客户中心。"),
    "REPAIR_CANCELLED": Template("报修 {number} 已取消", "{estate} 报修 {number} 已取消，无需再处理。"),
    "REPAIR_URGED": Template("报修 {number} 客户催单", "{estate} 报修 {number} 客户第 {count} 次催单，请尽快处理并回复。"),
    "REPAIR_TRANSFERRED": Template("报修 {number} 转给您", "{estate} 报修 {number} 已转由您处理，请尽快领取。"),
    "REPAIR_REOPENED": Template("报修 {number} 回访不满意", "{estate} 报修 {number} 回访时客户不满意，请整改后再次报验。"),
    "REPAIR_REPLANNED_NOTICE": Template("报修 {number} 现场方案变更", "{estate} 报修 {number} 现场变更了维修方案，请知悉。"),
    "FOLLOW_UP_MISSED": Template("回访 {number} 联系不上客户", "{estate} 回访 {number} 多次联系不上客户，请核实并确认。"),
    "FOLLOW_UP_ESCALATED": Template("回访 {number} 客户再次不满意", "{estate} 回访 {number} 客户再次不满意，请跟进整改。"),
    "REPAIR_CORRECTED": Template("报修 {number} 信息已更正", "{estate} 报修 {number} 的登记信息已更正，请查看后按更正后的内容处理。"),
    "FAULT_RECURRING": Template(
        "报修 {number} 同类故障频发", "{estate} 同一楼栋同类故障近期第 {count} 次复发（最近一单 {number}），请安排预防性维护。"
    ),
    "REPAIR_CHECK_COMPLETED": Template(
        "维修核查 {number} 已上报", "{estate} 当日维修核查 {number} 已完成，未处理或未交回的工单共 {count} 单，请审阅。"
    ),
    "REPAIR_OVERDUE": Template("报修 {number} 逾期未解决", "{estate} 报修 {number} 未在{limit}内解决，请会同工程部门跟进处理。"),
    # a follow-up and its spot check, to the staff concerned
    "FOLLOW_UP_ASSIGNED": Template("回访 {number} 由您负责", "{estate} 回访 {number} 由您负责，请在时限前回访客户并记录。"),
    "SPOT_CHECKS_DUE": Template("{number} 月回访抽查", "{estate} 已抽取 {number} 月回访 {count} 条，请在时限前完成抽查。"),
    "SPOT_CHECK_DEVIATED": Template("回访抽查 {number} 与记录不符", "{estate} 回访抽查 {number} 与记录不符，请跟进整改。"),
    # a duty, to those to whom it falls
    "DUTY_OPENED": Template("例行工作 {number} 请按时完成", "{estate} 例行工作 {number} 已开始，请在时限前完成并上报。"),
    # a repair, to the household
    "REPAIR_MERGED": Template("报修 {number} 已合并处理", "您的报修 {number} 与另一工单为同一事项，已合并处理，您的留言已转入该工单。"),
    "REPAIR_REPLANNED": Template(
        "报修 {number} 方案有变，请确认", "您的报修 {number} 现场情况有变，维修方案已调整，请查看并确认是否同意。"
    ),
    "REPAIR_APPOINTED": Template("报修 {number} 已约定上门时间", "您的报修 {number} 已约定上门时间，请留意预约时间并安排家人在场。"),
    "REPAIR_PAUSED": Template("报修 {number} 暂缓", "您的报修 {number} 因故暂缓，恢复后会再通知您。"),
    "REPAIR_RESUMED": Template("报修 {number} 继续维修", "您的报修 {number} 已恢复维修。"),
    "REPAIR_RECEIVED": Template("报修 {number} 已受理", "您的报修已受理，单号 {number}，我们会尽快安排维修人员。"),
    "REPAIR_TAKEN": Template("报修 {number} 已有维修人员接单", "维修人员已领取您的报修 {number}，将按约定时间上门。"),
    "REPAIR_COMPLETED": Template("报修 {number} 已完工，请验收", "您的报修 {number} 已完工，请验收签字并评价；如不满意，可退回返工。"),
    # a time limit of any case, to the staff concerned
    "CLOCK_WARNED": Template("{case} {number} {clock}时限将到", "{estate} {case} {number} 的{clock}时限（{limit}）将到，请抓紧处理。"),
    "CLOCK_URGED": Template("{case} {number} 仍无人接手", "{estate} {case} {number} 的{clock}时限（{limit}）将到，请通知并督促。"),
    "CLOCK_BREACHED": Template("{case} {number} {clock}超时", "{estate} {case} {number} 已超过{clock}时限（{limit}），请{role}督办。"),
    "CLOCK_ESCALATED": Template(
        "{case} {number} {clock}超时升级", "{estate} {case} {number} 超过{clock}时限（{limit}）后仍未解决，现上报{role}督办。"
    ),
}

CASES = {"repair": "报修", "follow_up": "回访", "spot_check": "回访抽查", "duty_task": "例行工作"}
CLOCKS = {
    "pickup": "接单",
    "on_site": "到场",
    "resolve": "解决",
    "follow_up": "完成",
    "solution": "整改",
    "spot_check": "完成",
    "duty": "完成",
}

# steward.options.v1.Role → what the company calls it (ORG-09, X-38, X-39).
ROLES = {
    "CUSTOMER_ASSISTANT": "客服助理",
    "BUILDING_BUTLER": "楼栋管家",
    "EARLY_SHIFT_CLERK": "早班",
    "ARCHIVIST": "档案员",
    "CASHIER": "收银员",
    "FEE_COLLECTOR": "收费员",
    "TECHNICIAN": "维修员",
    "SECURITY_GUARD": "保安",
    "ENVIRONMENT_SUPERVISOR": "管家服务主管",
    "CS_SUPERVISOR": "客服主管",
    "ENGINEERING_SUPERVISOR": "工程主管",
    "SECURITY_SUPERVISOR": "保安主管",
    "CUSTOMER_MANAGER": "客户经理",
    "PROJECT_MANAGER": "项目经理",
    "ENGINEERING_MANAGER": "工程经理",
    "MANAGEMENT_DEPT_MANAGER": "管理部经理",
    "QUALITY_MANAGER": "品质督导部经理",
    "FINANCE": "财务",
    "ADMIN_HR": "行政人事",
    "BRANCH_LEADER": "分管领导",
    "COMPANY_LEADER": "公司领导",
    "GENERAL_MANAGER": "总经理",
    "GROUP_OPERATIONS": "集团运营",
}


def case_name(aggregate: str) -> str:
    """A process that is newer than this release is still told of, in general words; so are a clock and a role."""
    return CASES.get(aggregate, "工单")


def clock_name(clock: str) -> str:
    return CLOCKS.get(clock, "办理")


def role_name(role: str) -> str:
    return ROLES.get(role, "负责人")


def span(seconds: int) -> str:
    """`900` → `15分钟`, `7200` → `2小时`, `5400` → `1小时30分钟`; rounded to whole minutes, at least one."""
    hours, minutes = divmod(max(round(seconds / 60), 1), 60)
    return (f"{hours}小时" if hours else "") + (f"{minutes}分钟" if minutes else "")
